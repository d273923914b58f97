"""Which axes of the mesh each parameter is split over; models know nothing of it.

A rule is a pattern of the end of a parameter's path and a mesh axis (or None) for each of its last dimensions. Layers
and lanes stand in front of a parameter, so axes are counted from the right. A parameter is matched by exactly one rule:
where none matches, or several, JAX would keep it whole on every device without a word; here it is refused.

Under `FSDP` every device keeps a part of each matrix, of its gradient and of what the optimizer remembers of it; the
whole is there while a layer needs it. Under `TENSOR` heads, the width of feed-forward networks and the vocabulary are
split, and so are the products with them.
"""

import functools
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax.errors import UserError

POPULATION, DATA, FSDP, TENSOR = AXES = ("population", "data", "fsdp", "tensor")
"""Axes of every mesh: of lanes, of examples, of examples and parameters, of the inside of a layer."""
Axes = tuple[str | None, ...]

RULES: tuple[tuple[str, Axes], ...] = (
    # Tables of tokens, and the linear layers before and after all others.
    ("*embedding.embedding", (TENSOR, FSDP)),
    ("softmax.embedding", (TENSOR, FSDP)),
    ("output_bias.bias", (TENSOR,)),
    ("patch_embedding.kernel", (None, FSDP)),
    ("patch_embedding.bias", (FSDP,)),
    ("class_token", (FSDP,)),
    ("classifier.kernel", (FSDP, None)),
    ("classifier.bias", (None,)),
    ("sentences.embedding", (None, FSDP)),
    ("embedding_norm.*", (FSDP,)),
    ("hidden_token.linear.kernel", (FSDP, None)),
    ("hidden_token.linear.bias", (None,)),
    # Attention: W_Q, W_K and W_V are cut by heads, so W_O is cut where it takes them.
    ("query.kernel", (FSDP, TENSOR, None)),
    ("key.kernel", (FSDP, TENSOR, None)),
    ("value.kernel", (FSDP, TENSOR, None)),
    ("query.bias", (TENSOR, None)),
    ("key.bias", (TENSOR, None)),
    ("value.bias", (TENSOR, None)),
    ("out.kernel", (TENSOR, None, FSDP)),
    ("out.bias", (FSDP,)),
    # Hidden layers in the place of projections, and heads that share keys and values: too few heads to be cut.
    ("Dense_0.kernel", (FSDP, None)),
    ("Dense_0.bias", (FSDP,)),
    ("DenseGeneral_0.kernel", (FSDP, None, None)),
    ("DenseGeneral_0.bias", (None, None)),
    ("*_attention.scale", (TENSOR,)),
    ("score_function.kernel", (TENSOR, None, None)),
    ("score_function.v", (TENSOR, None)),
    ("weights_function.*", (None, None)),
    ("query_norm.*", (None,)),
    ("key_norm.*", (None,)),
    # Positions.
    ("positions.embedding", (None, FSDP)),
    ("positions.bias", (None, TENSOR)),
    ("relative.keys", (None, None)),
    ("relative.r.kernel", (FSDP, TENSOR, None)),
    ("relative.[uv]", (TENSOR, None)),
    # Feed-forward: what one layer splits the next takes split, of any depth.
    ("linear_*[13579].kernel", (FSDP, TENSOR)),
    ("linear_*[13579].bias", (TENSOR,)),
    ("linear_*[02468].kernel", (TENSOR, FSDP)),
    ("linear_*[02468].bias", (FSDP,)),
    ("gate.kernel", (FSDP, TENSOR)),
    # Recurrent networks: all of a state is wanted at each step.
    ("cell.*.kernel", (FSDP, None)),
    ("cell.*.bias", (FSDP,)),
    ("initial.kernel", (FSDP, None)),
    ("initial.bias", (FSDP,)),
    ("combine.kernel", (FSDP, None)),
    ("combine.bias", (FSDP,)),
    ("convolution.kernel", (None, None, FSDP)),
    ("convolution.bias", (FSDP,)),
    ("norm.scale", (FSDP,)),
    ("norm.bias", (FSDP,)),
)

EXAMPLES = (DATA, FSDP)
"""The axes that share the examples of a batch."""
OUTPUTS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("*embedding", (DATA, None, FSDP)),  # as the table lies: its rows are then exchanged, and not copied to all
    ("*embedding", (EXAMPLES, None, None)),
    ("*embedding.logits", (EXAMPLES, None, TENSOR)),
    ("softmax.logits", (EXAMPLES, None, TENSOR)),
    ("query", (EXAMPLES, None, TENSOR, None)),
    ("key", (EXAMPLES, None, TENSOR, None)),
    ("value", (EXAMPLES, None, TENSOR, None)),
    ("out", (EXAMPLES, None, None)),
    ("linear_*[13579]", (EXAMPLES, None, TENSOR)),
    ("linear_*[02468]", (EXAMPLES, None, None)),
    ("gate", (EXAMPLES, None, TENSOR)),
    ("convolution", (EXAMPLES, None, None)),
    ("norm", (EXAMPLES, None, None)),
    ("layers", (EXAMPLES, None, None)),
)
"""What modules return, by the end of their path (and the method, where it is not the call), and its gradients.

Without these the compiler may split a vector rather than gather a matrix, and then gathers the logits.
"""


@functools.cache
def rule_of(path: str) -> tuple[str, Axes]:
    """The one rule that matches a dotted path of a parameter, or of what has its path.

    Raises:
      UserError: none matches, or several.
    """
    parts = path.split(".")
    found = [rule for rule in RULES if _ends_with(parts, rule[0].split("."))]
    if len(found) != 1:
        which = " and ".join(repr(pattern) for pattern, _ in found) or "none"
        raise UserError(
            f"{path}: one rule of parallel/rules.py must say how this parameter is split over devices, but there match "
            f"it: {which}."
        )
    return found[0]


def _ends_with(parts: list[str], pattern: list[str]) -> bool:
    end = parts[-len(pattern) :]
    return len(end) == len(pattern) and all(map(fnmatchcase, end, pattern))


def specs(tree: Any, sizes: Mapping[str, int]) -> Any:
    """How every array of a state, or of parameters, is split over a mesh of those sizes; each has lanes in front.

    What a lane has one number of, as the step, is no parameter: it is split over the lanes alone.

    Raises:
      UserError: a parameter that no rule matches, or a dimension that an axis does not divide.
    """
    by_rules = sizes[FSDP] > 1 or sizes[TENSOR] > 1

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        if leaf.ndim < 2 or not by_rules:
            return PartitionSpec(POPULATION)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        axes = rule_of(name)[1]
        between = [None] * (leaf.ndim - 1 - len(axes))
        _check_divides(name, leaf.shape[leaf.ndim - len(axes) :], axes, sizes)
        return PartitionSpec(POPULATION, *between, *axes)

    return jax.tree_util.tree_map_with_path(spec, tree)


def _check_divides(name: str, shape: tuple[int, ...], axes: Axes, sizes: Mapping[str, int]) -> None:
    for size, axis in zip(shape, axes, strict=True):
        if axis is not None and size % sizes[axis]:
            raise UserError(
                f"parallel.{axis} = {sizes[axis]} does not divide {size:,}, a dimension of {name} {list(shape)}: "
                f"choose sizes of the model that it divides, or another parallel.{axis}."
            )


def spread(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, where modules that it calls lay out what they return by OUTPUTS."""

    def lay_out(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        found, method = call(*args, **kwargs), context.method_name
        parts = [*context.module.path, *([] if method == "__call__" else [method])]
        for pattern, axes in OUTPUTS:
            if _ends_with(parts, pattern.split(".")) and isinstance(found, jax.Array) and found.ndim == len(axes):
                found = jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec(*axes)))
        return found

    def laid_out(*arguments: Any) -> Any:
        with nn.intercept_methods(lay_out):
            return function(*arguments)

    return laid_out
