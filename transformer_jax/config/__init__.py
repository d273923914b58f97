"""Every knob, stated once: name, type, default (the paper's), the section that says so, bounds, when it is read.

`config.model.*` is read in `models/`, `config.data.*` in `data/`, and so on: the path of a knob tells its room. "The
paper" is Vaswani et al. 2017; the defaults are the base row of its Table 3.
"""

from ml_collections import ConfigDict

from transformer_jax.config.decoder_only import DecoderOnlyConfig
from transformer_jax.config.encoder_only import EncoderOnlyConfig
from transformer_jax.config.families import FAMILIES
from transformer_jax.config.model import (
    SCALELESS,
    AttentionPlace,
    AttentionSlots,
    EmbeddingConfig,
    EncoderDecoderConfig,
    LayersConfig,
    ModelConfig,
    TokenModelConfig,
    TransformerConfig,
    attention_at,
    attention_place,
)
from transformer_jax.config.recurrent import RecurrentConfig
from transformer_jax.config.rooms import (
    DataConfig,
    DecodeConfig,
    EvaluateConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainConfig,
)
from transformer_jax.config.schema import WIDEST, Field, Knob, check_value
from transformer_jax.config.tasks import TASK_CONFIGS, TaskConfig
from transformer_jax.config.tree import (
    FIELDS,
    Config,
    Resolved,
    chosen_schema,
    config_hash,
    default_config,
    derive,
    every_field,
    field_at,
    fields_of,
    flatten,
    freeze,
    is_read,
    not_read,
    replace,
    schema,
    to_dict,
    value_at,
    with_values,
)
from transformer_jax.config.vision import VisionConfig

__all__ = [
    "FAMILIES",
    "FIELDS",
    "SCALELESS",
    "TASK_CONFIGS",
    "WIDEST",
    "AttentionPlace",
    "AttentionSlots",
    "Config",
    "ConfigDict",
    "DataConfig",
    "DecodeConfig",
    "DecoderOnlyConfig",
    "EmbeddingConfig",
    "EncoderDecoderConfig",
    "EncoderOnlyConfig",
    "EvaluateConfig",
    "Field",
    "Knob",
    "LayersConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RecurrentConfig",
    "Resolved",
    "TaskConfig",
    "TokenModelConfig",
    "TrainConfig",
    "TransformerConfig",
    "VisionConfig",
    "attention_at",
    "attention_place",
    "check_value",
    "chosen_schema",
    "config_hash",
    "default_config",
    "derive",
    "every_field",
    "field_at",
    "fields_of",
    "flatten",
    "freeze",
    "is_read",
    "not_read",
    "replace",
    "schema",
    "to_dict",
    "value_at",
    "with_values",
]
