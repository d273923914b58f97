"""The slot `data.source`: where the examples come from."""

from typing import Any

from transformer_jax.config import DataConfig
from transformer_jax.data.algorithmic import Copy, Reverse, Sort
from transformer_jax.data.dataset import Dataset, Source
from transformer_jax.data.images import Digits, Mnist
from transformer_jax.data.labelled_text import LabelledText
from transformer_jax.data.parallel_text import ParallelText
from transformer_jax.data.pronunciations import Pronunciations
from transformer_jax.data.scan import Scan
from transformer_jax.data.text import Text
from transformer_jax.data.tfds_images import TfdsImages
from transformer_jax.data.tfds_set import TfdsSet
from transformer_jax.data.tfds_source import Tfds
from transformer_jax.errors import UserError
from transformer_jax.registry import resolve

SOURCES: dict[str, type[Source]] = {
    "parallel_text": ParallelText,
    "tfds": Tfds,
    "scan": Scan,
    "copy": Copy,
    "reverse": Reverse,
    "sort": Sort,
    "text": Text,
    "pronunciations": Pronunciations,
    "labelled_text": LabelledText,
    "mnist": Mnist,
    "digits": Digits,
    "tfds_images": TfdsImages,
}


def make_source(config: DataConfig) -> Source:
    """The source that `data.source` names; UserError if its options are wrong. Reads nothing."""
    return resolve(SOURCES, config.source, "data.source")()


def make_dataset(config: DataConfig, assets: Any = None) -> Dataset:
    """What the source that `data.source` names loads; see `Source.load`."""
    return make_source(config).load(config, assets)


def check_there(config: DataConfig) -> None:
    """Refuses a corpus that would have to be downloaded: training does that, and nothing that reads a run."""
    source = make_source(config)
    if isinstance(source, TfdsSet):
        source.check_there(config)


def check(config: DataConfig) -> None:
    """Refuses a source, options of it or a combination of fields that cannot work; reads no file, makes no array."""
    make_source(config).check(config)
    if config.batch_multiple > config.tokens_per_batch:
        raise UserError(
            f"data.tokens_per_batch = {config.tokens_per_batch:,} is too few for data.batch_multiple = "
            f"{config.batch_multiple:,} examples, even of one token each. Set it higher, or data.batch_multiple lower."
        )
