"""How long is it from the command to the first training step, and how much memory is it at most?

    ./launch.sh benchmark start --models=multi30k --output=docs/benchmarks

"cold": with nothing that an earlier run left; "warm": with what the cold one left (the compiled programs, the corpus as
numbers). Ours is the whole command, from the start of Python over the tokenizer to the line of its first step, and to
that of the step by which every shape of the data has been met. PyTorch's time begins with Python, too, but its batches
are ready: it need not tokenise. Memory is that of the process at its peak, when all shapes have been met.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.models import Measured, chosen_models, each_of
from benchmarks.peer_process import Peers
from benchmarks.training import Ours, write_for_peers
from transformer_jax.config import Config, flatten, replace, to_dict
from transformer_jax.errors import UserError
from transformer_jax.processes import of_this_code

OF = ("models", "config")
MOST_STEPS = 40
"""After which rare shapes are not waited for."""


def run(models: Mapping[str, Measured] | Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each model: seconds to the first step, and MiB."""
    return [_measure(name, config, say) for name, config, _ in each_of(models)]


def _measure(name: str, config: Config, say: Callable[[str], None]) -> dict[str, Any]:
    ours = Ours(config, MOST_STEPS)
    plan = ours.program.plan
    classes = [plan.class_at(step) for step in range(MOST_STEPS)]
    met = 1 + max(classes.index(a_class) for a_class in set(classes))
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        _write_config(folder / "config.py", config)
        for state in ("cold", "warm"):
            found[f"ours, {state}"] = _first_steps(folder, state, met)
            say(f"{name:>15}  ours, {state}: {_line(found[f'ours, {state}'])}")
        write_for_peers(folder, ours, {"bucketed": ours.batches[:met]})
        for peer in ("torch", "torch_compiled"):
            for state in ("cold", "warm"):
                cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor_{peer}")}
                begun = time.perf_counter()
                peers = Peers("training.py", folder, say, cache)
                if not peers.names:
                    break
                peers.ask({"peer": peer, "batches": "bucketed", "steps": 1})
                first = time.perf_counter() - begun
                peers.ask({"peer": peer, "batches": "bucketed"})
                every = time.perf_counter() - begun
                found[f"{peer}, {state}"] = {"first_step": first, "all_shapes": every, "mib": peers.peak_mib()}
                peers.end()
                say(f"{name:>15}  {peer}, {state}: {_line(found[f'{peer}, {state}'])}")
    return {"model": name, "shapes_met": len(set(classes)), "shapes": len(plan.shapes), "steps": met, "seconds": found}


def _write_config(path: Path, config: Config) -> None:
    values = flatten(to_dict(replace(config, {"train.log_every": 1})))
    lines = [f"    config.{field} = {value!r}" for field, value in values.items() if value is not None]
    family = f"default_config({config.model.family!r}, {config.task.name!r})"
    text = ["from transformer_jax.config import default_config", "def get_config():", f"    config = {family}"]
    path.write_text("\n".join([*text, *lines, "    return config", ""]))


def _first_steps(folder: Path, state: str, met: int) -> dict[str, float]:
    """Of `./launch.sh train`, which is ended then."""
    command = [sys.executable, "-m", "transformer_jax.cli", "train", f"--config={folder / 'config.py'}"]
    environment = {**of_this_code(os.environ), "XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    begun, first = time.perf_counter(), None
    process = subprocess.Popen(
        [*command, f"--workdir={folder / state}"], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if first is None and line.startswith("step 1/"):
            first = time.perf_counter() - begun
        if first is not None and line.startswith(f"step {met}/"):
            every = time.perf_counter() - begun
            process.kill()
            _, _, used = os.wait4(process.pid, 0)
            return {"first_step": first, "all_shapes": every, "mib": used.ru_maxrss / 1024}
    raise UserError("the command ended before it had trained; its message stands above.")


def _line(found: Mapping[str, float]) -> str:
    return (
        f"{found['first_step']:.1f} s to the first step, {found['all_shapes']:.1f} s until all shapes were met, "
        f"{found['mib']:,.0f} MiB"
    )


__all__ = ["OF", "chosen_models", "run"]
