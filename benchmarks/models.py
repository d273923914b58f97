"""The models that are measured, and the same models as the peers are told of them."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformer_jax.config import Config, Resolved, attention_at
from transformer_jax.errors import UserError
from transformer_jax.loading import load_config
from transformer_jax.registry import parse_spec

ROOT = Path(__file__).parent.parent
STEPS = 10
"""A round of what does not say how many."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model of the harness.

    Attributes:
      spec: FILE:ROW of its config.
      overrides: of the config.
      steps: how many training steps a round has; a few seconds.
    """

    spec: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = STEPS

    def config(self) -> Config:
        """Its config."""
        return load_config(str(ROOT / self.spec), self.overrides)


ON_MULTI30K = {
    "data.directory": "multi30k/tok",
    "data.tokenizer": "sentencepiece(vocab_size=4000)",
    "data.max_length": 128,
    "data.tokens_per_batch": 1024,
    "data.length_classes": 2,
}
"""Sentences for the base model, whose own corpus is not on every machine; its table keeps its 37,000 rows."""
MODELS = {
    "scan": Measured("configs/scan.py", steps=20),
    "multi30k": Measured("configs/multi30k.py:cpu_hour", steps=12),
    "base": Measured("configs/base.py", ON_MULTI30K, steps=2),
    "language_model": Measured("configs/shakespeare.py", steps=40),
    "images": Measured("configs/mnist.py", {"task.shift": 0}, steps=20),
}


def chosen_models(names: str) -> dict[str, Measured]:
    """Those of the comma-separated names; all for none.

    Raises:
      UserError: a model that is not measured.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(MODELS)
    for name in wanted:
        if name not in MODELS:
            raise UserError(f"--models={name}: there is no such model. Models: {', '.join(MODELS)}.")
    return {name: MODELS[name] for name in wanted}


def each_of(chosen: Mapping[str, Measured] | Config) -> Iterator[tuple[str, Config, int]]:
    """The name, the config and the steps a round of each model that was chosen, or of one config."""
    if isinstance(chosen, Config):
        yield "--config", chosen, STEPS
        return
    for name, model in chosen.items():
        yield name, model.config(), model.steps


PAPER = {"score": "dot", "scale": "inv_sqrt_d_k", "weights": "softmax", "projections": "linear"}
PAPER |= {"output_projection": "linear", "qk_norm": "none", "use_bias": False, "dropout_rate": 0.0}


def described(config: Resolved) -> dict[str, Any]:
    """What `peers/torch_models.py` makes the model of, and its optimizer.

    Raises:
      UserError: that file has no such model.
    """
    model, optimizer = config.model, config.optimizer
    embedding = getattr(model, "embedding", None)
    positions, options = parse_spec(model.positions, "model.positions")
    wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model.positions": (positions, ("sinusoidal", "learned")),
        "model.feed_forward": (model.feed_forward, ("relu", "gelu")),
        "model.residual": (model.residual, ("post_norm", "pre_norm")),
        "model.norm": (model.norm, ("layer_norm",)),
        "model.ffn_depth": (model.ffn_depth, (2,)),
        "model.ffn_dropout_rate": (model.ffn_dropout_rate, (0.0,)),
        "model.dtype": (model.dtype, ("float32",)),
        "optimizer.name": (optimizer.name, ("adam", "adamw")),
    }
    if embedding is None:
        wanted |= {"model.pooling": (getattr(model, "pooling", None), ("class_token",))}
    else:
        tying = "three_way" if model.family == "transformer" else "decoder"
        wanted["model.embedding.tying"] = embedding.tying, (tying,)
        wanted["model.embedding.output_bias"] = embedding.output_bias, (False,)
    for place in model.places:
        slots = attention_at(model, place)
        wanted |= {f"model.attention.{place}.{name}": (getattr(slots, name), (value,)) for name, value in PAPER.items()}
    for field, (found, known) in wanted.items():
        if found not in known:
            raise UserError(f"{field} = {found!r}: the peers have {' or '.join(map(repr, known))} only.")
    layers = {name: getattr(model, name) for name in vars(model) if name.endswith("_layers")}
    longest = {"max_length": options.get("max_length", config.data.max_length + 1)}
    of_all = ("vocab_size", "d_model", "num_heads", "d_ff", "num_classes", "patch_size", "image_channels")
    sizes = {name: getattr(model, name) for name in of_all if hasattr(model, name)}
    names = ("feed_forward", "residual", "dropout_rate", "norm_epsilon")
    numbers = {name: getattr(optimizer, name) for name in ("beta_1", "beta_2", "epsilon", "weight_decay", "clip_norm")}
    return {
        **layers,
        **longest,
        **sizes,
        **{name: getattr(model, name) for name in names},
        **numbers,
        "d_k": model.head_widths[0],
        "positions": positions,
        "embedding_scale": model.d_model**0.5 if embedding and embedding.scale == "sqrt_d_model" else 1.0,
        "optimizer": optimizer.name,
        "label_smoothing": config.train.label_smoothing,
    }
