"""What the benchmarks of training share: our side of them, the batches, and what the peers are given."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.models import described
from transformer_jax.config import Config
from transformer_jax.models.build import build_model
from transformer_jax.run.compile import Program, compile_program
from transformer_jax.strict_json import to_json
from transformer_jax.tasks import task_of
from transformer_jax.vocabulary import PAD

Batches = list[dict[str, np.ndarray]]


class Ours:
    """A program in training: the first steps of its plan, again and again."""

    def __init__(self, config: Config, steps: int):
        self.program = compile_program(config)
        self._count = steps
        self._lanes = self.program.lanes([self.program.config])
        self._state = self.program.steps.init(self._lanes)
        self.initial = jax.tree.map(lambda leaf: np.asarray(leaf[0]), self._state.params)

    @property
    def batches(self) -> Batches:
        """What is trained on."""
        return [self.program.plan.batch_at(step, self.program.config.seed) for step in range(self._count)]

    def loss(self, batch: Mapping[str, np.ndarray]) -> float:
        """Of the initial parameters, without dropout, added up over the batch."""
        config = self.program.config
        task, model = task_of(config), build_model(config.model)
        measured = jax.jit(lambda params, batch: task.measure(config, model, params, batch, None))(self.initial, batch)
        return float(measured["loss"][0].sum())

    def seconds(self) -> float:
        """All steps, from the plan to the new parameters."""
        started, step = time.perf_counter(), 0
        while step < self._count:
            self._state, _, count = self.program.steps.take(self._state, step, self._count - step, self._lanes)
            step += count
        jax.block_until_ready(self._state)
        return time.perf_counter() - started


def padded(program: Program, count: int) -> Batches:
    """Batches of as many random examples as ours have in the mean, as wide as the longest of each side."""
    split = program.dataset.splits["train"]
    size = max(round(len(split) / program.plan.batches_per_epoch), 1)
    order = np.random.default_rng(0).permutation(len(split))
    lengths = {side: rows.lengths for side, rows in split.sides().items()}
    batches = []
    for n in range(count):
        chosen = np.take(order, range(n * size, (n + 1) * size), mode="wrap")
        widths = {side: int(of_side[chosen].max()) for side, of_side in lengths.items()}
        batches.append(
            {name: column.gather(chosen, widths.get(column.side or "", 0)) for name, column in split.columns.items()}
        )
    return batches


def sides(batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What goes in and what is to come out: tokens and tokens, or images and the numbers of their classes."""
    return (batch["images"], batch["labels"]) if "images" in batch else (batch["inputs"], batch["targets"])


def real_targets(batches: Batches) -> int:
    """Tokens but for padding, or images."""
    return sum(
        int((batch["labels"] >= 0).sum() if "labels" in batch else (batch["targets"] != PAD).sum()) for batch in batches
    )


def padding_share(batches: Batches) -> float:
    """The share of places of the targets that hold nothing."""
    return 1 - real_targets(batches) / sum(sides(batch)[1].size for batch in batches)


def write_for_peers(folder: Path, ours: Ours, batches: Mapping[str, Batches]) -> None:
    """The files that `peers/training.py` reads: the model, our weights, and the batches of each kind."""
    (folder / "model.json").write_text(to_json(described(ours.program.config)))
    np.savez(folder / "weights.npz", **_flat(ours.initial))
    for kind, made in batches.items():
        both = ("inputs", "targets")
        arrays = {f"{side}_{n}": a for n, batch in enumerate(made) for side, a in zip(both, sides(batch), strict=True)}
        np.savez(folder / f"{kind}.npz", **arrays)


def _flat(params: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
