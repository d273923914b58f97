"""FAMILIES: the relatives of the Transformer, each with the dataclass of its `model.*`, which `model.family` picks."""

from transformer_jax.config.decoder_only import DecoderOnlyConfig
from transformer_jax.config.model import ModelConfig, TransformerConfig

FAMILIES: dict[str, type[ModelConfig]] = {"transformer": TransformerConfig, "decoder_only": DecoderOnlyConfig}
