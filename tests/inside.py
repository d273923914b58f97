"""The one place where tests call what lies inside a model: its modules, encoder, decoder and cache.

All other tests ask for parameters, logits and texts. Where the inside is rebuilt, its calls change here alone.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config
from transformer_jax.models import build
from transformer_jax.models.embedding import Embedding
from transformer_jax.models.transformer import Sequence

# --- Modules ---


def apply(module: nn.Module, params: Any, *arguments: Any, key: jax.Array | None = None) -> Any:
    """What a module gives; dropout is on where there is a key."""
    rngs = {} if key is None else {"dropout": key}
    return module.apply({"params": params}, *arguments, deterministic=key is None, rngs=rngs)


def param_shapes(module: nn.Module, *arguments: Any) -> Any:
    """The tree of a module's parameters, abstract; {} if it has none."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, deterministic=True)).get("params", {})


def source_embedding(config: Config) -> nn.Module:
    return build.build_model(config.model).build_source_embedding()


def multi_head_attention(config: Config, place: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Abstract parameters(x_BTD, memory_BSD), and output(params, x_BTD, memory_BSD, mask_BHTS), of a place."""
    module = build._attention(config.model, place, jnp.float32)()

    def call(module: Any, x_BTD: Any, memory_BSD: Any, mask_BHTS: Any) -> Any:
        q_positions, k_positions = (np.arange(x.shape[1])[None] for x in (x_BTD, memory_BSD))
        keys_values = module.keys_and_values(memory_BSD, k_positions)
        return module(x_BTD, keys_values, mask_BHTS, q_positions, k_positions, deterministic=True)

    def shapes(x_BTD: Any, memory_BSD: Any) -> Any:
        mask = np.ones((1, 1, x_BTD.shape[1], memory_BSD.shape[1]), bool)
        arguments = jax.random.key(0), x_BTD, memory_BSD, mask
        return jax.eval_shape(lambda: nn.init(call, module)(*arguments)).get("params", {})

    return shapes, lambda params, *arguments: nn.apply(call, module)({"params": params}, *arguments)


# --- Whole models ---


def init(config: Config, key: jax.Array) -> Any:
    """Initial parameters."""
    return build.init_params(config.model, key)


def logits(
    config: Config,
    params: Any,
    inputs_BS: Any,
    decoder_inputs_BT: Any,
    places: tuple[tuple[Any, Any], tuple[Any, Any]] | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """[B, T, C]; `places`: (positions, segments) of the source and of the target. Dropout is on if there is a key."""
    source, target = (Sequence(*place) for place in places) if places else (None, None)
    sides = jnp.asarray(inputs_BS), jnp.asarray(decoder_inputs_BT)
    return apply(build.build_model(config.model), params, *sides, source, target, key=key)


def shapes_in_training(config: Config, inputs_BS: Any, decoder_inputs_BT: Any) -> tuple[Any, Any]:
    """Abstract logits and variables of a model that is initialised with its dropout on."""
    model, key = build.build_model(config.model), jax.random.key(0)
    rngs = {"params": key, "dropout": key}
    return jax.eval_shape(lambda: model.init_with_output(rngs, inputs_BS, decoder_inputs_BT, deterministic=False))


@contextlib.contextmanager
def added_to_embeddings(*added_BTD: Any) -> Iterator[None]:
    """Within, the first embedding that is made (the source's) has the first array added to it, and so on."""
    left = iter(added_BTD)

    def add(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = function(*args, **kwargs)
        embeds = isinstance(context.module, Embedding) and context.method_name == "__call__"
        return out + next(left) if embeds else out

    with nn.intercept_methods(add):
        yield


# --- Decoding ---


def step_by_step(config: Config, params: Any, inputs_BS: Any, tokens_BT: Any, max_length: int) -> tuple[Any, int]:
    """[B, T, C], each from the token before and the cache; and how many tokens the cache then says it holds."""
    model, inputs = build.build_model(config.model), jnp.asarray(inputs_BS)
    encode, decode = (
        jax.jit(functools.partial(model.apply, {"params": params}, deterministic=True, method=method))
        for method in ("encode", "decode")
    )
    memory, segments = encode(inputs), (inputs != build.PAD_ID).astype(jnp.int32)
    cache, steps = build.start_cache(config.model, len(inputs), max_length), []
    for t in range(tokens_BT.shape[1]):
        step, cache = decode(jnp.asarray(tokens_BT[:, t : t + 1]), memory, segments, cache=cache)
        steps.append(step)
    return np.concatenate(steps, axis=1), int(cache.length)


def cache_shapes(config: Config, rows: int, max_length: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shapes of the keys and the values of an empty cache, and the number of tokens in it."""
    cache = build.start_cache(config.model, rows, max_length)
    return cache.keys.shape, cache.values.shape, int(cache.length)
