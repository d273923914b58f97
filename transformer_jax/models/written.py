"""What is kept of hypotheses while they are written token by token, beside keys and values: in the collection "cache".

B examples, W hypotheses of each, N = B W.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.models.masks import Relation, relate_written
from transformer_jax.models.tokens import Tokens


def begin_written(module: nn.Module, batch_size: int, width: int, length: int) -> None:
    """Makes room in a model for `width` hypotheses an example of at most `length` tokens each; none is there yet."""
    module.put_variable("cache", "length", jnp.zeros((), jnp.int32))
    module.put_variable("cache", "writers", jnp.zeros((batch_size * width, length), jnp.int32))


def add_written(module: nn.Module, tokens_NT: jax.Array, batch_size: int) -> tuple[Tokens, Relation]:
    """Adds tokens to the hypotheses: these in rows of an example, [B, T W], and whom they may attend to."""
    length: jax.Array = module.get_variable("cache", "length")
    tokens, to_self, writers_NS = relate_written(tokens_NT, length, module.get_variable("cache", "writers"), batch_size)
    module.put_variable("cache", "length", length + tokens_NT.shape[1])
    module.put_variable("cache", "writers", writers_NS)
    return tokens, to_self
