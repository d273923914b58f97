"""How fast are models trained, beside PyTorch and x-transformers?

    ./launch.sh benchmark train --models=scan,multi30k --output=docs/benchmarks
    ./launch.sh benchmark train --config=FILE

All train on the same batches of examples of like length, that of each step made by its pipeline; PyTorch also on what
its users mostly feed: batches of random examples, as wide as the longest. What is counted are real target tokens a
second, without padding, or images a second. All take turns; a figure is the median over the rounds. PyTorch's models
have our weights, and must have our loss. Two threads each on a CPU, float32, Adam. The peers need an environment of
their own: see `benchmarks/peer_process.py`.
"""

import functools
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import Measured, chosen_models, each_of
from benchmarks.peer_process import Peers
from benchmarks.training import Ours, padded, padding_share, real_targets, write_for_peers
from transformer_jax.config import Config
from transformer_jax.errors import UserError
from transformer_jax.run.compile import count_parameters

OF = ("models", "config")
ROUNDS = 5
SAME = 1e-4
"""By what share the losses of one model may differ."""


def run(models: Mapping[str, Measured] | Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each model: real targets (tokens, images) a second of each, and ours over theirs."""
    return [_measure(name, config, steps, say) for name, config, steps in each_of(models)]


def _measure(name: str, config: Config, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    ours = Ours(config, steps)
    batches = {"bucketed": ours.batches, "padded": padded(ours.program, steps)}
    with tempfile.TemporaryDirectory() as of_peers:
        folder = Path(of_peers)
        write_for_peers(folder, ours, batches)
        peers = Peers("training.py", folder, say)
        looked = _look(ours, batches["bucketed"][0], peers)
        kinds = list(batches) if any(ours.program.plan.padding_share.values()) else ["bucketed"]
        asked = [
            (peer, kind)
            for kind in kinds
            for peer in peers.names
            if kind == "bucketed" or peer in ("torch", "torch_compiled")
        ]
        trainers: dict[str, Callable[[], float]] = {"ours": ours.seconds}
        for peer, kind in asked:
            trainers[f"{peer}, {kind}"] = functools.partial(_seconds, peers, peer, kind)
        tokens = {trainer: real_targets(batches[trainer.partition(", ")[2] or "bucketed"]) for trainer in trainers}
        seconds = take_turns(trainers, ROUNDS)
        peers.end()
    speeds = {trainer: tokens[trainer] / statistics.median(of_trainer) for trainer, of_trainer in seconds.items()}
    row = {
        "model": name,
        "parameters": {"ours": count_parameters(ours.program.config), **looked["parameters"]},
        "loss_differs_by": looked["loss_differs_by"],
        "shapes": len(ours.program.plan.shapes),
        "steps": steps,
        "padding": {kind: padding_share(made) for kind, made in batches.items()},
        "targets_per_second": speeds,
        "seconds_a_step": {trainer: statistics.median(of_one) / steps for trainer, of_one in seconds.items()},
        "ours_over": {trainer: speeds["ours"] / speed for trainer, speed in speeds.items() if trainer != "ours"},
        "rounds": seconds,
        "versions": peers.versions,
    }
    for line in table([row]):
        say(line)
    return row


def _seconds(peers: Peers, peer: str, kind: str) -> float:
    return float(peers.ask({"peer": peer, "batches": kind})["seconds"])


def take_turns(trainers: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in each round; what the first one compiles is not counted."""
    measured = [{name: once() for name, once in trainers.items()} for _ in range(rounds + 1)][1:]
    return {name: [of_round[name] for of_round in measured] for name in trainers}


def _look(ours: Ours, batch: Mapping[str, np.ndarray], peers: Peers) -> dict[str, Any]:
    """How many parameters each peer has, and by what share the loss of those with our weights differs from ours."""
    looked = {peer: peers.ask({"peer": peer, "look": True}) for peer in peers.names}
    loss = ours.loss(batch) if looked else 0.0
    differs = {peer: abs(look["loss"] / loss - 1) for peer, look in looked.items() if look["loss"] is not None}
    for peer, by in differs.items():
        if not by < SAME:
            raise UserError(f"The loss of {peer} differs by a share of {by:.1e} from ours: it is not the same model.")
    return {"parameters": {peer: look["parameters"] for peer, look in looked.items()}, "loss_differs_by": differs}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each model and contender."""
    lines = []
    for row in rows:
        for trainer, speed in row["targets_per_second"].items():
            ratio = row["ours_over"].get(trainer)
            over = "" if ratio is None else f"  ours is {ratio:5.2f} times as fast"
            milliseconds = 1000 * row["seconds_a_step"][trainer]
            lines.append(f"{row['model']:>15}  {trainer:<26} {speed:>10,.0f} targets/s {milliseconds:>9,.1f} ms{over}")
    return lines


__all__ = ["OF", "chosen_models", "run", "table"]
