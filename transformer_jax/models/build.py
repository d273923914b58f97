"""From `config.model` to a module: the one place where slots are resolved, structures chosen and pairs refused."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.config import ATTENTION_PLACES, Config, ModelConfig, attention_at
from transformer_jax.errors import UserError
from transformer_jax.models.attention import MultiHeadAttention
from transformer_jax.models.embedding import Embedding, NoOutputBias, OutputBias
from transformer_jax.models.feed_forward import FEED_FORWARDS
from transformer_jax.models.masks import DECODER_MASKS
from transformer_jax.models.positions import POSITIONS, Learned, NoPositions, T5Bias, acts_on_scores
from transformer_jax.models.projections import OUTPUT_PROJECTIONS, PROJECTIONS
from transformer_jax.models.regularisation import Dropout
from transformer_jax.models.residual import NORMS, RESIDUALS, AddNorm, left_out
from transformer_jax.models.scores import SCALES, SCORES
from transformer_jax.models.transformer import Cache, DecoderLayer, EncoderLayer, Transformer
from transformer_jax.models.weights import WEIGHTS
from transformer_jax.registry import options, parse_spec, resolve

PAD_ID = 0
MOST_DISTANCE = 2**20
"""Positions, distances and buckets of a table: far more than any sentence has."""


def build_model(config: ModelConfig) -> Transformer:
    """The model that `config` describes, with d_k, d_v and vocab_size set. Float fields may be tracers."""
    dtype = jnp.dtype(config.dtype)
    dropout = functools.partial(Dropout, config.dropout_rate)
    norm = functools.partial(NORMS[config.norm], epsilon=config.norm_epsilon, dtype=dtype)
    add_norm = functools.partial(AddNorm, RESIDUALS[config.residual], norm, dropout)
    no_feed_forward = config.feed_forward == "none"
    layer_parts: dict[str, Any] = {
        "build_feed_forward": _feed_forward(config, dtype),
        "build_add_norm": add_norm,
        "build_last_add_norm": functools.partial(AddNorm, left_out, norm, dropout) if no_feed_forward else add_norm,
    }
    embedding = functools.partial(
        Embedding,
        d_model=config.d_model,
        scale=config.d_model**0.5 if config.embedding.scale == "sqrt_d_model" else 1.0,
        dtype=dtype,
    )
    tying = config.embedding.tying
    source_vocab_size = config.vocab_size if tying == "three_way" else config.source_vocab_size or config.vocab_size
    return Transformer(
        num_encoder_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        pad_id=PAD_ID,
        build_source_embedding=functools.partial(embedding, source_vocab_size),
        build_target_embedding=None if tying == "three_way" else functools.partial(embedding, config.vocab_size),
        build_softmax=functools.partial(embedding, config.vocab_size) if tying == "none" else None,
        build_output_bias=OutputBias if config.embedding.output_bias else NoOutputBias,
        build_encoder_layer=functools.partial(
            EncoderLayer, build_attention=_attention(config, "encoder", dtype), **layer_parts
        ),
        build_decoder_layer=functools.partial(
            DecoderLayer,
            build_self_attention=_attention(config, "decoder", dtype),
            build_cross_attention=_attention(config, "cross", dtype),
            **layer_parts,
        ),
        build_final_norm=norm if config.residual == "pre_norm" else NORMS["none"],
        build_positions=resolve(POSITIONS, config.positions, "model.positions"),
        build_dropout=dropout,
        decoder_mask=DECODER_MASKS[config.decoder_mask],
    )


def _attention(config: ModelConfig, place: str, dtype: Any) -> Callable[..., MultiHeadAttention]:
    slots = attention_at(config, place)
    field = f"model.attention.{place}"
    relative = resolve(POSITIONS, config.positions, "model.positions") if place != "cross" else NoPositions
    d_k, d_v = config.head_widths
    options = {"use_bias": slots.use_bias, "dtype": dtype}
    linear_out = slots.output_projection == "linear"
    return functools.partial(
        MultiHeadAttention,
        num_heads=config.num_heads,
        d_k=d_k,
        d_v=d_v,
        d_model=config.d_model,
        projections=functools.partial(resolve(PROJECTIONS, slots.projections, f"{field}.projections"), **options),
        score=resolve(SCORES, slots.score, f"{field}.score"),
        scale=functools.partial(resolve(SCALES, slots.scale, f"{field}.scale"), value=slots.scale_value),
        weights=resolve(WEIGHTS, slots.weights, f"{field}.weights"),
        output_projection=functools.partial(
            OUTPUT_PROJECTIONS[slots.output_projection], **(options if linear_out else {})
        ),
        qk_norm=functools.partial(NORMS[slots.qk_norm], epsilon=config.norm_epsilon, dtype=dtype),
        positions=relative,
        dropout=functools.partial(Dropout, slots.dropout_rate),
    )


def _feed_forward(config: ModelConfig, dtype: Any) -> Callable[..., Any]:
    return functools.partial(
        resolve(FEED_FORWARDS, config.feed_forward, "model.feed_forward"),
        d_model=config.d_model,
        d_ff=config.d_ff,
        depth=config.ffn_depth,
        dropout=functools.partial(Dropout, config.ffn_dropout_rate),
        dtype=dtype,
    )


def start_cache(config: ModelConfig, batch_size: int, max_length: int) -> Cache:
    """An empty cache for `batch_size` sentences of at most `max_length` tokens."""
    shape = (config.num_decoder_layers, batch_size, max_length, config.num_heads)
    dtype = jnp.dtype(config.dtype)
    keys, values = (jnp.zeros((*shape, width), dtype) for width in config.head_widths)
    return Cache(keys, values, jnp.zeros((), jnp.int32))


def init_params(config: ModelConfig, key: jax.Array) -> Any:
    """Initial parameters. The same path and shape start equal for the same key in every variant."""
    tokens = jnp.ones((1, 2), jnp.int32)
    return build_model(config).init({"params": key}, tokens, tokens, deterministic=True)["params"]


def check(config: Config) -> None:
    """Refuses slots that do not exist and combinations that cannot be built; makes no arrays.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    model = config.model
    for place in ATTENTION_PLACES:
        _check_attention(model, place)
    _check_positions(config)
    resolve(FEED_FORWARDS, model.feed_forward, "model.feed_forward")
    if model.feed_forward in ("swiglu", "geglu") and model.ffn_depth != 2:
        raise UserError(
            f"model.ffn_depth = {model.ffn_depth}: the gated feed-forward {model.feed_forward!r} has depth 2."
        )
    if model.feed_forward in ("gelu", "linear") and model.ffn_depth == 1:
        raise UserError(
            f"model.feed_forward = {model.feed_forward!r} changes nothing at model.ffn_depth = 1, one linear layer."
        )
    if model.residual == "pre_norm" and model.norm == "none":
        raise UserError("model.residual = 'pre_norm' says where the normalisation stands, but model.norm is 'none'.")
    if model.embedding.tying == "three_way" and not config.data.joint_vocabulary:
        raise UserError(
            "model.embedding.tying = 'three_way' shares one table between both languages, but data.joint_vocabulary is "
            "false: choose 'decoder' or 'none', or a joint vocabulary."
        )


def _check_positions(config: Config) -> None:
    field, spec = "model.positions", config.model.positions
    scheme = resolve(POSITIONS, spec, field)()
    for place in ("encoder", "decoder"):
        if acts_on_scores(scheme) and attention_at(config.model, place).weights == "uniform":
            raise UserError(
                f"{field} = {spec!r} acts on the scores, which model.attention.{place}.weights = 'uniform' leaves out."
            )
    for option, value in parse_spec(spec, field)[1].items():
        if value <= 0:
            raise UserError(f"{field} = {spec!r}: {option} must be above 0.")
        if isinstance(options(type(scheme))[option].default, int) and value > MOST_DISTANCE:
            raise UserError(f"{field} = {spec!r}: {option} must be at most {MOST_DISTANCE:,}.")
    if isinstance(scheme, T5Bias) and not 2 <= scheme.buckets // 2 < scheme.max_distance:
        raise UserError(f"{field} = {spec!r}: needs at least 4 buckets, and a max_distance above buckets / 2.")
    longest = config.data.max_length + config.decode.max_extra_length
    if isinstance(scheme, Learned) and scheme.max_length < longest:
        raise UserError(
            f"{field} = {spec!r} has vectors for {scheme.max_length} positions, but data.max_length + "
            f"decode.max_extra_length = {longest}: write learned(max_length={longest})."
        )


def _check_attention(model: ModelConfig, place: str) -> None:
    d_k, d_v = model.head_widths
    slots, field = attention_at(model, place), f"model.attention.{place}"
    tables: dict[str, Mapping[str, Callable[..., Any]]] = {
        "score": SCORES,
        "scale": SCALES,
        "weights": WEIGHTS,
        "projections": PROJECTIONS,
    }
    for slot, table in tables.items():
        resolve(table, getattr(slots, slot), f"{field}.{slot}")
    heads = {"d_k": model.num_heads * d_k, "d_v": model.num_heads * d_v}
    sliced = {"no_query": ["d_k"], "no_key": ["d_k"], "no_value": ["d_v"], "none": ["d_k", "d_v"]}
    for width in sliced.get(slots.projections, []):
        if heads[width] != model.d_model:
            raise UserError(
                f"{field}.projections = {slots.projections!r} gives each head a slice of the vector: num_heads * "
                f"{width} = {heads[width]} must equal model.d_model = {model.d_model}."
            )
    if slots.output_projection == "none" and heads["d_v"] != model.d_model:
        raise UserError(
            f"{field}.output_projection = 'none' adds the heads to the residual stream as they are: num_heads * d_v = "
            f"{heads['d_v']} must equal model.d_model = {model.d_model}."
        )
    if slots.projections in ("shared_key_value", "shared") and d_k != d_v:
        raise UserError(f"{field}.projections = {slots.projections!r} needs d_k = d_v, but they are {d_k} and {d_v}.")
    if place != "cross" and parse_spec(model.positions, "model.positions")[0] == "rotary":
        if d_k % 2:
            raise UserError(f"model.positions = 'rotary' turns pairs of coordinates, but model.d_k = {d_k} is odd.")
        if slots.score not in ("dot", "cosine"):
            raise UserError(
                f"model.positions = 'rotary' needs the score 'dot' or 'cosine', but {field}.score is {slots.score!r}."
            )
