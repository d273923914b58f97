"""What a config amounts to, before anything is trained: parameters per module, FLOPs, memory, what is not used."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from transformer_jax.config import Config, Resolved, not_read, value_at
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.run.compile import state_template
from transformer_jax.run.resolve import validate
from transformer_jax.tasks import task_of

BACKWARD = 2  # products of matrices for each of the forward pass: one for the input's gradient, one for the weights'


def describe(config: Config) -> dict[str, Any]:
    """Figures of a config in which nothing of the model is left to the data.

    Returns:
      "parameters": entries in all; "modules": the same by module, two levels deep, of stacked layers those of all
      layers; "flops_per_token": side of the batch -> products and sums of one training step for each of its tokens,
      attention between tokens not counted, or "example" -> those for an example that is no tokens; "memory": bytes of
      "parameters", "gradients", what the "optimizer" keeps and the "average" of the parameters; "not_used": fields that
      this config does not read.

    Raises:
      UserError: the config is refused, or something of the model is left to the data, as the size of a vocabulary.
    """
    validate(config)
    for name in config.model.from_data:
        if value_at(config, f"model.{name}") is None:
            raise UserError(f"model.{name} is unset and comes from the data: set it to describe the model alone.")
    state = state_template(Resolved(config))
    modules: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        keys = [str(part.key) for part in path]
        module = ".".join(keys[: 3 if keys[1:2] == ["layers"] else 2])
        modules[module] = modules.get(module, 0) + math.prod(leaf.shape)
    parts = {"parameters": state.params, "gradients": state.params}
    parts |= {"optimizer": state.opt_state, "average": state.average}
    return {
        "parameters": sum(modules.values()),
        "modules": modules,
        "flops_per_token": {
            side: (1 + BACKWARD) * flops for side, flops in _flops_per_token(Resolved(config), state.params).items()
        },
        "memory": {name: _bytes_of(tree) for name, tree in parts.items()},
        "not_used": not_read(config),
    }


def _bytes_of(tree: Any) -> int:
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _flops_per_token(config: Resolved, params: Any) -> dict[str, int]:
    """Side -> FLOPs of the forward pass for each of its tokens; a side that the model does not read has none.

    Without sides, "example" -> those of one example.
    """
    batch = dict(task_of(config).example_batch(config))
    sides = [name for name, tokens in batch.items() if tokens.ndim == 2]

    if not sides:
        return {"example": _flops_of(jax.make_jaxpr(build_model(config.model).apply)(params, batch).jaxpr)}

    def flops(widths: Mapping[str, int]) -> int:
        """Of an example of that many tokens."""
        shapes = {name: jax.ShapeDtypeStruct((1, width), batch[name].dtype) for name, width in widths.items()}
        return _flops_of(jax.make_jaxpr(build_model(config.model).apply)(params, batch | shapes).jaxpr)

    def linear(widths: Mapping[str, int]) -> int:
        """The part that grows with the number of tokens; attention grows with its square."""
        return (4 * flops(widths) - flops({side: 2 * width for side, width in widths.items()})) // 2

    one = dict.fromkeys(sides, 1)
    found = {side: linear({**one, side: 2}) - linear(one) for side in sides}
    return {side: flops for side, flops in found.items() if flops}


def _flops_of(jaxpr: Any) -> int:
    """Products and sums of all products of matrices; those of a loop as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * summed
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns"))
        total += equation.params.get("length", 1) * sum(_flops_of(part) for part in inner if hasattr(part, "eqns"))
    return total
