"""Classification: name the one class that an example belongs to. B examples, C classes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config, Resolved, value_at, with_values
from transformer_jax.data import Examples
from transformer_jax.data.images import Labels
from transformer_jax.data.labelled_text import SentenceClasses
from transformer_jax.errors import UserError
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.tasks.losses import smoothed_cross_entropy
from transformer_jax.tasks.made_up import made_up_sentences
from transformer_jax.tasks.task import Figure, Measured, Metrics, Output
from transformer_jax.tasks.text_metrics import check_metrics, text_metrics
from transformer_jax.vocabulary import NUM_AFTER


class Classes:
    """The most probable class of each example, by its name."""

    def predict(self, config: Config, model: Model, params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        """ "classes": int32[B]."""
        return {"classes": jnp.argmax(model.apply(params, batch), axis=-1)}

    def read(self, predicted: Mapping[str, Any], assets: Labels | SentenceClasses) -> list[str]:
        """Their names."""
        return [assets.names[number] for number in predicted["classes"].tolist()]

    def remarks(self, predicted: Mapping[str, Any]) -> Metrics:
        """Nothing."""
        return {}

    def judge(self, config: Config, texts: list[str], split: Examples) -> Metrics:
        """Against the names of the true classes."""
        return text_metrics(config.evaluate.metrics, texts, split.texts["references"])


class Classification:
    """Examples of known classes; judged by how many are named rightly."""

    families: tuple[str, ...] = ("vision", "encoder_only")
    figures: Mapping[str, Figure] = MappingProxyType(
        {
            "nll": Figure("nll", higher_is_better=False),
            "accuracy": Figure("accuracy", higher_is_better=True),
        }
    )
    output: Output | None = Classes()
    unit = "examples"

    def check(self, config: Config) -> None:
        """The metrics exist."""
        check_metrics(config.evaluate.metrics)

    def complete(self, config: Config, assets: Labels | SentenceClasses) -> Resolved:
        """The number of classes, and the sizes of the images or of the vocabulary."""
        values = {f"model.{name}": size for name, size in assets.sizes().items()}
        for path, size in values.items():
            if value_at(config, path) not in (None, size):
                raise UserError(f"{path} = {value_at(config, path)}, but the data have {size}: leave it unset.")
        return Resolved(with_values(config, values))

    def measure(self, config: Config, model: Model, params: Params, batch: Batch, key: jax.Array | None) -> Measured:
        """Loss, nll and accuracy; nothing of a place without an example."""
        if key is not None:
            batch = _in_training(config, batch, key)
        logits_BC, labels_B = model.apply(params, batch, key), batch["labels"]
        loss_B, nll_B = smoothed_cross_entropy(logits_BC, labels_B, config.train.label_smoothing)
        count_B = (labels_B >= 0).astype(jnp.float32)
        sums = {"loss": loss_B, "nll": nll_B, "accuracy": jnp.argmax(logits_BC, axis=-1) == labels_B}
        return {name: (values_B * count_B, count_B) for name, values_B in sums.items()}

    def example_batch(self, config: Resolved, examples: int = 1, seed: int = 0) -> Batch:
        """Images of random pixels, of which those of later classes are the brighter; or sentences of 1 to 6 tokens."""
        if "images" not in config.model.reads:
            return _sentences(config, examples, seed)
        rng = np.random.default_rng(seed)
        shape = [value_at(config, f"model.image_{name}") for name in ("height", "width", "channels")]
        classes = value_at(config, "model.num_classes")
        labels = rng.integers(classes, size=examples, dtype=np.int32)
        images = rng.integers(96, size=(examples, *shape)) + (159 * labels // (classes - 1)).reshape(-1, 1, 1, 1)
        return {"images": jnp.asarray(images, jnp.uint8), "labels": jnp.asarray(labels)}


def _sentences(config: Resolved, examples: int, seed: int) -> Batch:
    """Of random tokens; the class is told by the first."""
    size, classes = (value_at(config, f"model.{name}") for name in ("vocab_size", "num_classes"))
    inputs = made_up_sentences([6 - i % 6 for i in range(examples)], 6, size - NUM_AFTER, seed)
    labels = inputs[:, 0] % classes
    return {"inputs": jnp.asarray(inputs), "labels": jnp.asarray(labels)}


def _in_training(config: Config, batch: Batch, key: jax.Array) -> Batch:
    """The batch with its images, where it has any, moved, each by itself."""
    shift = value_at(config, "task.shift") if "images" in batch else 0
    return {**batch, "images": shifted(batch["images"], shift, jax.random.fold_in(key, 1))} if shift else batch


def shifted(images_BHWK: jax.Array, most: int, key: jax.Array) -> jax.Array:
    """Each image moved by up to `most` pixels along both axes; what comes in is what stood at the edge."""
    size, *shape = images_BHWK.shape
    wide = jnp.pad(images_BHWK, [(0, 0), (most, most), (most, most), (0, 0)], mode="edge")
    starts_B2 = jax.random.randint(key, (size, 2), 0, 2 * most + 1)
    return jax.vmap(lambda image, start: jax.lax.dynamic_slice(image, (start[0], start[1], 0), shape))(wide, starts_B2)
