"""A model as pure functions of its parameters: what tasks and training know of it."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from transformer_jax.models.stack import KEPT
from transformer_jax.models.tokens import Batch

Params = Any
Context = Any
"""What all steps of writing share; any pytree of arrays [example, ...]."""
Cache = Any
"""What changes from step to step. Leaves are [hypothesis, ...], of one alone; [example, ...], where its hypotheses
share what lies there; or scalars, shared by all."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A Linen module. `start` and `step` are there for modules that can write token by token."""

    module: nn.Module

    def init(self, key: jax.Array, batch: Batch) -> Params:
        """Initial parameters. The same path and shape start equal for the same key in every variant."""
        return self.module.init({"params": key}, batch)["params"]

    def apply(self, params: Params, batch: Batch, key: jax.Array | None = None) -> Any:
        """What the module says of a batch; dropout is on where there is a key."""
        return self.module.apply({"params": params}, batch, rngs={} if key is None else {"dropout": key})

    def start(self, params: Params, batch: Batch, width: int, length: int) -> tuple[Context, Cache]:
        """What is known before the first token, for `width` hypotheses an example of at most `length` tokens each."""
        _, kept = self.module.apply({"params": params}, batch, width, length, method="start", mutable=KEPT)
        return kept["context"], kept["cache"]

    def step(self, params: Params, tokens_B: jax.Array, context: Context, cache: Cache) -> tuple[jax.Array, Cache]:
        """float32[B, C]: the logits of the token after these, which follow those of earlier steps; and the cache."""
        logits_B1C, cache = self.read(params, tokens_B[:, None], context, cache)
        return logits_B1C[:, 0], cache

    def read(self, params: Params, tokens_BT: jax.Array, context: Context, cache: Cache) -> tuple[jax.Array, Cache]:
        """Several steps at once, of tokens that are known: float32[B, T, C], and the cache."""
        variables = {"params": params, "context": context, "cache": cache}
        logits_BTC, changed = self.module.apply(variables, tokens_BT, method="step", mutable=["cache"])
        return logits_BTC, changed["cache"]
