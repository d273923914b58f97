"""FAMILIES: the relatives of the Transformer, each with the dataclass of its `model.*`, which `model.family` picks."""

from transformer_jax.config.decoder_only import DecoderOnlyConfig
from transformer_jax.config.encoder_only import EncoderOnlyConfig
from transformer_jax.config.model import ModelConfig, TransformerConfig
from transformer_jax.config.recurrent import RecurrentConfig
from transformer_jax.config.vision import VisionConfig

FAMILIES: dict[str, type[ModelConfig]] = {
    "transformer": TransformerConfig,
    "decoder_only": DecoderOnlyConfig,
    "recurrent": RecurrentConfig,
    "vision": VisionConfig,
    "encoder_only": EncoderOnlyConfig,
}
