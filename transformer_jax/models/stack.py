"""The layers of a stack, scanned, so that depth costs no compile time."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

GIVEN = ("params", "heads", "patches")
"""What a caller gives: parameters and, where one experiments with a trained model, what `Model.given` may hold."""
COLLECTIONS: Mapping[Any, int] = {**dict.fromkeys(GIVEN, 0), "intermediates": 0}
"""What each layer has of its own; the arrays of all layers are stacked along the first axis."""
KEPT = ("context", "cache")
"""What each layer keeps while a sentence is written, apart from that of the others."""

REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "layers": None,
    "dots_saveable": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims_saveable": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What is kept of a layer for its gradient, where the rest is computed again: None, only its input."""


def each_layer(call: Callable[[Any, Any], Any], layer: nn.Module, x: Any, depth: int, remat: str = "none") -> Any:
    """`x` after `call(layer, x)` of each of `depth` layers, which differ in parameters, dropout and what they keep."""
    if layer.is_mutable_collection("cache") and not layer.is_initializing():
        return _one_after_the_other(call, layer, x, depth)
    if remat != "none":
        call = nn.remat(call, policy=REMAT_POLICIES[remat], prevent_cse=False)  # a scan needs no barrier against CSE
    scan = nn.scan(
        lambda layer, x, _: (call(layer, x), None),
        variable_axes=COLLECTIONS,
        split_rngs={"params": True, "dropout": True},
        length=depth,
    )
    return scan(layer, x, None)[0]


def _one_after_the_other(call: Callable[[Any, Any], Any], layer: nn.Module, x: Any, depth: int) -> Any:
    """While a sentence is written: a scan would copy all that the layers keep at each token."""
    run = nn.apply(call, layer.clone(parent=None), mutable=KEPT)
    given = {name: layer.variables[name] for name in GIVEN if name in layer.variables}
    for number in range(depth):
        kept: dict[str, Any] = {name: layer.get_variable(name, f"{number}", {}) for name in KEPT}
        x, kept = run({**jax.tree.map(lambda leaf, number=number: leaf[number], given), **kept}, x)
        for name in filter(layer.is_mutable_collection, kept):
            layer.put_variable(name, f"{number}", kept[name])
    return x
