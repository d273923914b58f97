"""From `config.model` to a module: the one place where slots are resolved, structures chosen and pairs refused."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from transformer_jax.config import AttentionPlace, Config, LayersConfig, ModelConfig, attention_place
from transformer_jax.errors import UserError
from transformer_jax.models.decoder_only import DecoderOnly
from transformer_jax.models.encoder_only import EncoderOnly
from transformer_jax.models.feed_forward import FEED_FORWARDS
from transformer_jax.models.model import Model
from transformer_jax.models.parts import Parts
from transformer_jax.models.positions import positions_of
from transformer_jax.models.projections import OUTPUT_PROJECTIONS, PROJECTIONS
from transformer_jax.models.recurrent import Recurrent
from transformer_jax.models.residual import RESIDUALS
from transformer_jax.models.scales import SCALES
from transformer_jax.models.scores import SCORES
from transformer_jax.models.transformer import Transformer
from transformer_jax.models.vision import Vision
from transformer_jax.models.weights import WEIGHTS
from transformer_jax.registry import check_entry, options, parse_spec, resolve

MOST_DISTANCE = 2**20
"""Positions, distances and buckets of a table: far more than any sentence has."""
ATTENTION_SLOTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "score": SCORES,
    "scale": SCALES,
    "weights": WEIGHTS,
    "projections": PROJECTIONS,
    "output_projection": OUTPUT_PROJECTIONS,
}
MODELS: dict[str, Callable[[Parts], nn.Module]] = {
    "transformer": Transformer,
    "decoder_only": DecoderOnly,
    "recurrent": Recurrent,
    "vision": Vision,
    "encoder_only": EncoderOnly,
}


def build_model(config: ModelConfig, remat: str = "none") -> Model:
    """The model that `config`, in which nothing is unset, describes. Float fields may be tracers.

    `remat` says what of a layer is computed again for its gradient instead of kept; see `stack.each_layer`.
    """
    return Model(MODELS[config.family](Parts(config, remat)))


def check(config: Config) -> None:
    """Refuses slots that do not exist and combinations that cannot be built; makes no arrays.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    model = config.model
    check_entry(MODELS, model.family, "model.family", config)
    for place in model.places:
        _check_attention(attention_place(model, place))
    if isinstance(model, LayersConfig):
        _check_positions(config, model)
        check_entry(FEED_FORWARDS, model.feed_forward, "model.feed_forward", model)
    check_entry(RESIDUALS, model.residual, "model.residual", model)


def _check_attention(place: AttentionPlace) -> None:
    for slot, table in ATTENTION_SLOTS.items():
        check_entry(table, getattr(place.slots, slot), f"{place.field}.{slot}", place)


def _check_positions(config: Config, model: LayersConfig) -> None:
    field, spec = "model.positions", model.positions
    scheme = resolve(positions_of(model), spec, field)()
    for option, value in parse_spec(spec, field)[1].items():
        if value <= 0:
            raise UserError(f"{field} = {spec!r}: {option} must be above 0.")
        if isinstance(options(type(scheme))[option].default, int) and value > MOST_DISTANCE:
            raise UserError(f"{field} = {spec!r}: {option} must be at most {MOST_DISTANCE:,}.")
    scheme.check(config)
    for name in model.places:
        if name != "cross":
            scheme.check_place(config, attention_place(model, name))
