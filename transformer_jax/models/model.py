"""A model as pure functions of its parameters: what tasks and training know of it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    """A Linen module. `start` and `step` are there for modules that can write token by token.

    Attributes:
      given: for experiments with a trained model; by the path of who it is for, with the axis of layers in front.
        "heads": {"factor": float32[layer, H] or [layer, B, H]} of attention, by which its heads are multiplied.
        "patches": {"instead", "here"} of any module, [layer, ...]: what it returns instead, and where; see `patched`.
    """

    module: nn.Module
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def init(self, key: jax.Array, batch: Batch) -> Params:
        """Initial parameters. The same path and shape start equal for the same key in every variant."""
        return self.module.init({"params": key}, batch)["params"]

    def apply(self, params: Params, batch: Batch, key: jax.Array | None = None) -> Any:
        """What the module says of a batch; dropout is on where there is a key."""
        return self.module.apply(self._given(params), batch, rngs={} if key is None else {"dropout": key})

    def look(self, params: Params, batch: Batch, also: Callable[[nn.Module, str], bool] | bool = False) -> Any:
        """What the module says of a batch, and what it had in between, by the path of who had it.

        Attention tells of "q", "k", "v", "scores", "weights" and "heads". What stands in a layer has the axis
        of layers in front.

        Args:
          also: True, or of a module and the name of its method whether what that returns is told too.
        """
        said, seen = self.module.apply(
            self._given(params), batch, capture_intermediates=also, mutable=["intermediates"]
        )
        return said, seen.get("intermediates", {})

    def _given(self, params: Params) -> dict[str, Any]:
        return {"params": params, **self.given}

    def start(self, params: Params, batch: Batch, width: int, length: int) -> tuple[Context, Cache]:
        """What is known before the first token, for `width` hypotheses an example of at most `length` tokens each."""
        _, kept = self.module.apply(self._given(params), batch, width, length, method="start", mutable=KEPT)
        return kept["context"], kept["cache"]

    def step(self, params: Params, tokens_B: jax.Array, context: Context, cache: Cache) -> tuple[jax.Array, Cache]:
        """float32[B, C]: the logits of the token after these, which follow those of earlier steps; and the cache."""
        logits_B1C, cache = self.read(params, tokens_B[:, None], context, cache)
        return logits_B1C[:, 0], cache

    def read(self, params: Params, tokens_BT: jax.Array, context: Context, cache: Cache) -> tuple[jax.Array, Cache]:
        """Several steps at once, of tokens that are known: float32[B, T, C], and the cache."""
        variables = {**self._given(params), "context": context, "cache": cache}
        logits_BTC, changed = self.module.apply(variables, tokens_BT, method="step", mutable=["cache"])
        return logits_BTC, changed["cache"]


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Within, a module that is given a patch returns what it is given `instead`, where `here` is true."""

    def patch(function: Any, arguments: Any, options: Any, context: Any) -> Any:
        said, module = function(*arguments, **options), context.module
        if context.method_name != "__call__" or not module.has_variable("patches", "instead"):
            return said
        instead, here = (module.get_variable("patches", name) for name in ("instead", "here"))
        return jnp.where(here, instead, said).astype(said.dtype)

    with nn.intercept_methods(patch):
        yield
