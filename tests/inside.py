"""The one place where tests call what lies inside a model: its modules, encoder, decoder and cache.

All other tests ask for parameters, logits and texts. Where the inside is rebuilt, its calls change here alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config
from transformer_jax.models.build import build_model
from transformer_jax.models.embedding import Embedding
from transformer_jax.models.masks import Relation
from transformer_jax.models.parts import Parts
from transformer_jax.models.tokens import Tokens, tokens_of
from transformer_jax.tasks import task_of
from transformer_jax.vocabulary import PAD

# --- Modules ---


def apply(module: nn.Module, params: Any, *arguments: Any, key: jax.Array | None = None) -> Any:
    """What a module gives; dropout is on where there is a key."""
    rngs = {} if key is None else {"dropout": key}
    return module.apply({"params": params}, *arguments, rngs=rngs)


def param_shapes(module: nn.Module, *arguments: Any) -> Any:
    """The tree of a module's parameters, abstract; {} if it has none."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments)).get("params", {})


def source_embedding(config: Config) -> nn.Module:
    return Parts(config.model).embedding(config.model.vocab_size)


def multi_head_attention(config: Config, place: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Abstract parameters(x_BTD, memory_BSD), and output(params, x_BTD, memory_BSD, mask_BHTS), of a place."""
    module = Parts(config.model).attention(place)

    def call(module: Any, x_BTD: Any, memory_BSD: Any, mask_BHTS: Any) -> Any:
        q_positions, k_positions = (np.arange(x.shape[1])[None] for x in (x_BTD, memory_BSD))
        return module(x_BTD, memory_BSD, Relation(mask_BHTS, q_positions, k_positions))

    def shapes(x_BTD: Any, memory_BSD: Any) -> Any:
        mask = np.ones((1, 1, x_BTD.shape[1], memory_BSD.shape[1]), bool)
        arguments = jax.random.key(0), x_BTD, memory_BSD, mask
        return jax.eval_shape(lambda: nn.init(call, module)(*arguments)).get("params", {})

    return shapes, lambda params, *arguments: nn.apply(call, module)({"params": params}, *arguments)


# --- Whole models ---


def init(config: Config, key: jax.Array) -> Any:
    """Initial parameters."""
    return build_model(config.model).init(key, task_of(config).example_batch(config))


def logits(
    config: Config,
    params: Any,
    inputs_BS: Any,
    decoder_inputs_BT: Any,
    places: tuple[tuple[Any, Any], tuple[Any, Any]] | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """[B, T, C]; `places`: (positions, segments) of the source and of the target. Dropout is on if there is a key."""
    batch = {"inputs": jnp.asarray(inputs_BS), "decoder_inputs": jnp.asarray(decoder_inputs_BT)}
    source, target = (tokens_of(batch, side) for side in batch)
    if places:
        source, target = (Tokens(side.ids, *place) for side, place in zip((source, target), places, strict=True))

    def call(module: Any) -> Any:
        return module.decode(target, module.encode(source), source)

    rngs = {} if key is None else {"dropout": key}
    return nn.apply(call, build_model(config.model).module)({"params": params}, rngs=rngs)


def shapes_in_training(config: Config) -> tuple[Any, Any]:
    """Abstract logits and variables of a model that is initialised with its dropout on."""
    key, batch = jax.random.key(0), task_of(config).example_batch(config)
    rngs = {"params": key, "dropout": key}
    return jax.eval_shape(lambda: build_model(config.model).module.init_with_output(rngs, batch))


def embedded(config: Config, params: Any, batch: Any) -> list[np.ndarray]:
    """The tokens that the model embeds, side after side; the last are those whose successors it predicts."""
    found = []

    def look(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Embedding) and context.method_name == "__call__":
            found.append(np.asarray(args[0]))
        return function(*args, **kwargs)

    with nn.intercept_methods(look), jax.disable_jit():
        build_model(config.model).apply(params, batch)
    return found


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


def step_by_step(
    config: Config, params: Any, batch: Any, tokens_BT: Any, max_length: int, at_once: int = 0
) -> tuple[Any, int]:
    """[B, T, C], each from the token before and the cache; and how many tokens the cache then says it holds.

    `at_once`: so many tokens at the beginning are read together.
    """
    model = build_model(config.model)
    context, cache = jax.jit(model.start, static_argnums=(2, 3))(params, batch, 1, max_length)
    step, steps = jax.jit(model.step), []
    if at_once:
        logits_BTC, cache = model.read(params, jnp.asarray(tokens_BT[:, :at_once]), context, cache)
        steps.append(logits_BTC)
    for t in range(at_once, tokens_BT.shape[1]):
        logits_BC, cache = step(params, jnp.asarray(tokens_BT[:, t]), context, cache)
        steps.append(logits_BC[:, None])
    return np.concatenate(steps, axis=1), int(cache["length"])


def cache_shapes(config: Config, rows: int, max_length: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shapes of the keys and the values of a layer's empty cache, and the number of tokens in it."""
    batch = {"inputs": jnp.full((rows, 2), PAD + 1)}
    params = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)
    _, cache = build_model(config.model).start(params, batch, 1, max_length)
    keys, values = cache["decoder"]["layers"]["0"]["self_attention"]["keys_values"]
    return keys.shape, values.shape, int(cache["length"])
