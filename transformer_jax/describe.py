"""What a config amounts to, before anything is trained: parameters per module, FLOPs, what is not used."""

import math
from typing import Any

import jax

from transformer_jax.config import Config, Resolved, not_read
from transformer_jax.errors import UserError
from transformer_jax.run.compile import state_template
from transformer_jax.run.resolve import validate

BYTES_OF_ADAM = 16  # float32 parameters, gradients and two moments


def describe(config: Config) -> dict[str, Any]:
    """Figures of a config whose vocabulary is known.

    Returns:
      "parameters": entries in all; "modules": the same by module, two levels deep, of stacked layers those of all
      layers; "flops_per_token": of one training step, 6 for each entry of the matrices that a token passes (attention
      over other tokens not counted); "state_bytes": parameters, gradients and Adam's moments; "not_used": fields that
      this config does not read.

    Raises:
      UserError: the config is refused, or has no vocabulary size.
    """
    validate(config)
    if config.model.vocab_size is None:
        raise UserError("model.vocab_size is unset and comes from the tokenizer: set it to describe the model alone.")
    params = state_template(Resolved(config)).params
    modules: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        keys = [str(part.key) for part in path]
        name = ".".join(keys[: 3 if keys[1] == "layers" else 2])
        modules[name] = modules.get(name, 0) + math.prod(leaf.shape)
    total = sum(modules.values())
    return {
        "parameters": total,
        "modules": modules,
        "flops_per_token": 6 * _entries_per_token(config, params),
        "state_bytes": BYTES_OF_ADAM * total,
        "not_used": not_read(config),
    }


def _entries_per_token(config: Config, params: Any) -> int:
    """Entries of kernels, each used once a token, and the softmax's table; looking a row up costs nothing."""
    kernels = sum(
        math.prod(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"
    )
    return kernels + (config.model.vocab_size or 0) * config.model.d_model
