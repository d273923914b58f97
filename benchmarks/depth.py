"""What does depth cost before the first step?

    ./launch.sh benchmark depth --models=multi30k --output=docs/benchmarks

Seconds to trace and to compile the training step of one shape with 2, 6 and 12 layers in each stack, with no cache; for
PyTorch the first step of `torch.compile` less the second.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from benchmarks.models import Measured, chosen_models, each_of
from benchmarks.peer_process import Peers
from benchmarks.training import Ours, write_for_peers
from transformer_jax.config import Config, fields_of, replace

OF = ("models", "config")
DEPTHS = (2, 6, 12)


def run(models: Mapping[str, Measured] | Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each model and depth: seconds."""
    jax.config.update("jax_enable_compilation_cache", False)  # before the first program: JAX looks only once
    rows = []
    for name, config, _ in each_of(models):
        found: dict[str, dict[str, float]] = {}
        for depth in DEPTHS:
            layers = {path: depth for path in fields_of(config) if path.endswith("_layers")}
            for contender, seconds in _compile(replace(config, layers), say).items():
                found.setdefault(contender, {})[str(depth)] = seconds
            say(
                f"{name:>15}  {depth:>2} layers  " + "  ".join(f"{c} {of[str(depth)]:.1f} s" for c, of in found.items())
            )
        rows.append({"model": name, "compile_seconds": found})
    return rows


def _compile(config: Config, say: Callable[[str], None]) -> dict[str, float]:
    ours = Ours(config, 1)
    found = {"ours": ours.seconds() - ours.seconds()}
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        write_for_peers(folder, ours, {"bucketed": ours.batches})
        peers = Peers("training.py", folder, say, {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")})
        if peers.names:
            question = {"peer": "torch_compiled", "batches": "bucketed"}
            found["torch_compiled"] = peers.ask(question)["seconds"] - peers.ask(question)["seconds"]
        peers.end()
    return found


__all__ = ["OF", "chosen_models", "run"]
