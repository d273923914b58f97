"""A config as the config.json of Hugging Face's `MarianMTModel`, and back.

Marian (Junczys-Dowmunt et al. 2018) is the paper's model, post-norm, with biases in all projections and on the logits,
swish or ReLU in the feed-forward network, and one table for source, target and softmax.
"""

from collections.abc import Mapping
from typing import Any

from transformer_jax.checked_json import checked
from transformer_jax.config import Config, TransformerConfig, attention_at, freeze
from transformer_jax.errors import UserError
from transformer_jax.vocabulary import NUM_SPECIALS

EPSILON = 1e-5
"""What Marian adds to variances; it has no setting for that."""
ACTIVATIONS = {"swish": "swish", "silu": "swish", "relu": "relu", "gelu": "gelu"}
"""Theirs -> ours."""
LONGEST = 256
"""Tokens a side of an imported model, if it has so many positions: the paper's choice of `data.max_length`."""
REQUIRED = {
    "vocab_size": int,
    "d_model": int,
    "encoder_layers": int,
    "decoder_layers": int,
    "encoder_attention_heads": int,
    "decoder_attention_heads": int,
    "encoder_ffn_dim": int,
    "decoder_ffn_dim": int,
    "activation_function": str,
    "eos_token_id": int,
    "pad_token_id": int,
    "decoder_start_token_id": int,
}
OPTIONAL = {
    "model_type": (str, "marian"),
    "decoder_vocab_size": (int | None, None),
    "share_encoder_decoder_embeddings": (bool, True),
    "tie_word_embeddings": (bool, True),
    "scale_embedding": (bool, False),
    "dropout": (float, 0.1),
    "attention_dropout": (float, 0.0),
    "activation_dropout": (float, 0.0),
    "max_position_embeddings": (int, 1024),
    "num_beams": (int, 4),
}
"""Name -> type, and what it is where a file leaves it out."""


def to_settings(config: Config) -> dict[str, Any]:
    """The content of a config.json; the ids are those of `weights.order_of_ids`.

    Raises:
      UserError: Marian cannot be what the config describes.
    """
    _check_exportable(config)
    model = config.model
    assert isinstance(model, TransformerConfig)
    assert model.vocab_size is not None
    depths = model.depths
    size = model.vocab_size - 1
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == model.feed_forward)
    slots = attention_at(model, "encoder")
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "vocab_size": size,
        "decoder_vocab_size": size,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "d_model": model.d_model,
        "encoder_layers": depths["encoder"],
        "decoder_layers": depths["decoder"],
        "encoder_attention_heads": model.num_heads,
        "decoder_attention_heads": model.num_heads,
        "encoder_ffn_dim": model.d_ff,
        "decoder_ffn_dim": model.d_ff,
        "activation_function": activation,
        "dropout": model.dropout_rate,
        "attention_dropout": slots.dropout_rate,
        "activation_dropout": model.ffn_dropout_rate,
        "scale_embedding": model.embedding.scale == "sqrt_d_model",
        "max_position_embeddings": model.longest(config.data.max_length, config.decode.max_extra_length),
        "eos_token_id": 0,
        "pad_token_id": size - 1,
        "decoder_start_token_id": size - 1,
        "bos_token_id": None,
        "forced_eos_token_id": None,
        "is_encoder_decoder": True,
        "torch_dtype": "float32",
    }


def to_generation_settings(config: Config) -> dict[str, Any]:
    """The content of a generation_config.json: our search, as far as theirs is the same."""
    settings = to_settings(config)
    names = ("eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id", "forced_eos_token_id")
    return {name: settings[name] for name in names} | {
        "bad_words_ids": [[settings["pad_token_id"]]],
        "max_length": settings["max_position_embeddings"],
        "num_beams": config.decode.beam_size if config.decode.strategy == "beam" else 1,
    }


def _check_exportable(config: Config) -> None:
    model = config.model
    if not isinstance(model, TransformerConfig):
        raise UserError(f"model.family = {model.family!r} is not what Marian computes: it is a 'transformer'.")
    wanted: dict[str, tuple[Any, list[Any]]] = {
        "model.residual": (model.residual, ["post_norm"]),
        "model.norm": (model.norm, ["layer_norm"]),
        "model.positions": (model.positions, ["sinusoidal"]),
        "model.embedding.tying": (model.embedding.tying, ["three_way"]),
        "model.ffn_depth": (model.ffn_depth, [2]),
        "model.feed_forward": (model.feed_forward, sorted(set(ACTIVATIONS.values()))),
        "model.d_k": (model.d_k, [model.d_model / model.num_heads]),
        "model.d_v": (model.d_v, [model.d_model / model.num_heads]),
    }
    theirs = {"score": "dot", "scale": "inv_sqrt_d_k", "weights": "softmax", "projections": "linear"}
    theirs |= {"output_projection": "linear", "qk_norm": "none"}
    for place in model.places:
        slots = attention_at(model, place)
        wanted |= {f"model.attention.{place}.{name}": (getattr(slots, name), [value]) for name, value in theirs.items()}
    for field, (found, allowed) in wanted.items():
        if found not in allowed:
            raise UserError(f"{field} = {found!r} is not what Marian computes: {' or '.join(map(repr, allowed))}.")


def read_settings(content: Any, where: object) -> dict[str, Any]:
    """A config.json that is one of a Marian model we can be, with all that it may leave out.

    Raises:
      UserError: naming the file, the field and what was found.
    """
    content = {name: default for name, (_, default) in OPTIONAL.items()} | checked(content, REQUIRED, where)
    settings = checked(content, {name: kind for name, (kind, _) in OPTIONAL.items()}, where)
    size, heads = settings["vocab_size"], settings["encoder_attention_heads"]
    needed = {
        "model_type": "marian",
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "decoder_attention_heads": heads,
        "decoder_ffn_dim": settings["encoder_ffn_dim"],
    }
    for name, value in needed.items():
        if settings[name] != value:
            raise UserError(f"{where}: {name} is {settings[name]!r}; only models where it is {value!r} can be read.")
    if settings["decoder_vocab_size"] not in (None, size):
        raise UserError(f"{where}: decoder_vocab_size differs from vocab_size: two vocabularies cannot be read.")
    if settings["activation_function"] not in ACTIVATIONS:
        raise UserError(
            f"{where}: activation_function is {settings['activation_function']!r}; allowed: {', '.join(ACTIVATIONS)}."
        )
    for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if not 0 <= settings[name] < size:
            raise UserError(f"{where}: {name} is {settings[name]}, but vocab_size is {size}.")
    if settings["eos_token_id"] == settings["pad_token_id"] or size < NUM_SPECIALS:
        raise UserError(f"{where}: eos_token_id and pad_token_id must be two tokens of at least {NUM_SPECIALS}.")
    return settings


def to_config(settings: Mapping[str, Any]) -> Config:
    """The config of the model whose `read_settings` these are, to be fine-tuned with a small constant learning rate."""
    model = {
        "vocab_size": settings["vocab_size"] + 1,
        "d_model": settings["d_model"],
        "num_heads": settings["encoder_attention_heads"],
        "d_ff": settings["encoder_ffn_dim"],
        "num_encoder_layers": settings["encoder_layers"],
        "num_decoder_layers": settings["decoder_layers"],
        "dropout_rate": settings["dropout"],
        "ffn_dropout_rate": settings["activation_dropout"],
        "feed_forward": ACTIVATIONS[settings["activation_function"]],
        "norm_epsilon": EPSILON,
        "attention.dropout_rate": settings["attention_dropout"],
        "attention.use_bias": True,
        "embedding.output_bias": True,
        "embedding.scale": "sqrt_d_model" if settings["scale_embedding"] else "one",
    }
    others = {
        "data.max_length": min(max(2, settings["max_position_embeddings"]), LONGEST),
        "data.tokens_per_batch": 2048,
        "optimizer.schedule": "constant",
        "optimizer.learning_rate": 2e-5,
        "train.steps": 1000,
        "train.evaluate_every": 200,
        "decode.beam_size": settings["num_beams"],
    }
    return freeze({f"model.{name}": value for name, value in model.items()} | others)
