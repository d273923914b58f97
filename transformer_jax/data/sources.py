"""The slot `data.source`: where the sentence pairs come from."""

from transformer_jax.config import DataConfig
from transformer_jax.data.algorithmic import Copy, Reverse, Sort
from transformer_jax.data.corpus import Corpus, Source, finish_corpus
from transformer_jax.data.parallel_text import ParallelText
from transformer_jax.data.scan import Scan
from transformer_jax.data.tfds_source import Tfds
from transformer_jax.registry import resolve

SOURCES: dict[str, type[Source]] = {
    "parallel_text": ParallelText,
    "tfds": Tfds,
    "scan": Scan,
    "copy": Copy,
    "reverse": Reverse,
    "sort": Sort,
}


def resolve_source(config: DataConfig) -> Source:
    """The source that `data.source` names; UserError if its options are wrong. Reads nothing."""
    source: Source = resolve(SOURCES, config.source, "data.source")()
    return source


def make_corpus(config: DataConfig) -> Corpus:
    """Reads or generates all splits.

    Training pairs with an empty side are dropped and counted; in "valid" and "test" they are kept.

    Raises:
      UserError: a missing or malformed file, a split without pairs; the sentence names file and line.
    """
    return finish_corpus(resolve_source(config).read(config), f"data.source {config.source!r}")
