"""A run that takes seconds: its config as a Config and as a file, and one finished run that many tests read.

What is compiled is kept for the session; `copy_of` gives a test a run directory of its own.
"""

import dataclasses
import functools
import json
import os
import shutil
import signal
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pictures
import pytest
import tiny

from transformer_jax.checkpoint import Checkpoints
from transformer_jax.config import Config, fields_of, flatten, freeze, replace, to_dict
from transformer_jax.run import saved
from transformer_jax.run.compile import Program, compile_program, state_template
from transformer_jax.run.directory import CHECKPOINTS, METRICS, PREDICTIONS, RESULT
from transformer_jax.run.identity import read_config
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.train import train_lanes

# Dropout is on (the default); two length classes; saves neither where the log has lines nor where it is evaluated.
VALUES: dict[str, Any] = {
    "data.source": "reverse(symbols=6, max_length=6, examples=120)",
    "data.tokenizer": "words",
    "data.tokens_per_batch": 128,
    "data.length_classes": 2,
    "data.max_length": 16,
    "model.d_model": 16,
    "model.num_heads": 2,
    "model.d_ff": 32,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
    "optimizer.schedule": "constant",
    "optimizer.learning_rate": 3e-3,
    "optimizer.ema_decay": 0.9,
    "train.steps": 20,
    "train.evaluate_every": 8,
    "train.log_every": 3,
    "train.checkpoint_every": 5,
    "train.keep_last": 3,
    "decode.strategy": "greedy",
    "decode.max_extra_length": 3,
    "evaluate.metrics": ("exact_match", "chrf"),
    "evaluate.decode_every": 8,
    "evaluate.checkpoint": "average:3",
}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "transformer": {},
    "decoder_only": {
        "data.source": "text(file='LICENSE')",
        "data.directory": str(Path(__file__).parent.parent),
        "data.tokenizer": "characters",
        "model.num_layers": 1,
    },
    "recurrent": {},
    "vision": {
        "data.source": "mnist(valid=24)",
        "data.directory": str(pictures.directory()),
        "data.tokens_per_batch": 16,
        "model.num_layers": 1,
        "model.patch_size": 2,
    },
    "encoder_only": {
        "data.source": "labelled_text",
        "data.directory": str(pictures.sentences()),
        "model.num_layers": 1,
    },
}
"""What a run of another family has in place of that."""
SAVED = [5, 8, 10, 15, 16, 20]
"""The steps at which such a run saves."""


def config(overrides: Mapping[str, Any] | None = None) -> Config:
    """Of the family that the overrides name, else the paper's."""
    family = (overrides or {}).get("model.family", "transformer")
    values = {**VALUES, **tiny.of_family(family), **OF_FAMILY[family]}
    fields = fields_of(freeze(tiny.of_family(family)))
    return freeze({path: value for path, value in values.items() if path in fields} | (overrides or {}))


def write_config_file(path: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """The config as a file to be loaded, with two ROWS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"    config.{name} = {value!r}" for name, value in {**VALUES, **(overrides or {})}.items()]
    path.write_text(
        "\n".join(
            [
                '"""A tiny run."""',
                "from transformer_jax.config import default_config",
                'ROWS = {"base": {}, "no_wo": {"model.attention.output_projection": "none"}}',
                "def get_config():",
                "    config = default_config()",
                *lines,
                "    return config",
                "",
            ]
        )
    )
    return path


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def program(lanes: int = 1, **overrides: Any) -> Program:
    """Compiled once. Keywords spell the dots of a path as two underscores."""
    return compile_program(config({name.replace("__", "."): value for name, value in overrides.items()}), lanes)


def adjusted(compiled: Program, overrides: Mapping[str, Any]) -> Program:
    """The same compiled functions with another plan for the loop, of which nothing is compiled."""
    assert all(path.startswith(("train.", "evaluate.")) for path in overrides)
    return dataclasses.replace(compiled, config=replace(compiled.config, overrides))


def with_take(compiled: Program, take: Callable[..., Any]) -> Program:
    """The program whose steps are taken by `take`, which is given the `take` there was before its arguments."""
    steps = compiled.steps
    wrapped = types.SimpleNamespace(init=steps.init, batch=steps.batch, take=functools.partial(take, steps.take))
    return dataclasses.replace(compiled, steps=wrapped)


def with_measure(compiled: Program, measure: Callable[..., Any]) -> Program:
    """The same of what is evaluated in training."""
    wrapped = types.SimpleNamespace(measure=functools.partial(measure, compiled.evaluator.measure))
    return dataclasses.replace(compiled, evaluator=wrapped)


def keep_what_is_opened(patch: pytest.MonkeyPatch) -> None:
    """Run directories that are opened again are not compiled again."""
    opened: dict[Any, Any] = {}

    def open_once(workdir: Path, overrides: Mapping[str, Any] | None = None) -> Any:
        key = workdir, tuple((overrides or {}).items())
        if key not in opened:
            opened[key] = open_run(workdir, overrides)
        return opened[key]

    open_run = saved.open_run
    patch.setattr(saved, "open_run", open_once)


def train_here(
    workdir: Path,
    seeds: Sequence[int] = (0,),
    compiled: Program | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Trains with a program that is compiled already; the directories of several lanes are `workdir`/seed."""
    compiled = compiled or program()
    configs = [freeze({**flatten(to_dict(compiled.config)), "seed": seed}) for seed in seeds]
    workdirs = [workdir / str(seed) for seed in seeds] if compiled.layout.lanes > 1 else [workdir]
    return train_lanes(configs, workdirs, program=compiled, say=say)


@functools.cache
def finished(family: str = "transformer") -> Path:
    """The directory of a finished run. Read only: many tests look at it."""
    workdir = Path(_temporary().name) / f"finished-{family}"
    train_here(workdir, compiled=program(model__family=family))
    return workdir


@functools.cache
def stopped() -> Path:
    """The directory of the same run, stopped at step 13. Read only."""
    workdir = Path(_temporary().name) / "stopped"
    with pytest.raises(Interruption):
        train_here(workdir, compiled=stop_at(program(), 13))
    return workdir


def stop_at(compiled: Program, step: int, number: int = signal.SIGTERM) -> Program:
    """The program that sends this process a signal as it takes `step` (from 1)."""

    def take(inner: Callable[..., Any], state: Any, before: int, *rest: Any) -> tuple[Any, Any, int]:
        state, totals, count = inner(state, before, *rest)
        if before < step <= before + count:
            os.kill(os.getpid(), number)
        return state, totals, count

    return with_take(compiled, take)


def copy_of(run: Path, workdir: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(run, workdir)
    return workdir


def content(workdir: Path) -> dict[str, Any]:
    """All that must not depend on how often a run was interrupted: states, log without speeds, predictions, scores."""
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    template = state_template(read_config(workdir))
    states = {step: checkpoints.restore(template, step)[0] for step in checkpoints.steps()}
    log = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    result = json.loads((workdir / RESULT).read_text())
    return {
        "states": {step: [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(s)] for step, s in states.items()},
        "log": [{name: value for name, value in line.items() if not name.endswith("_per_second")} for line in log],
        "predictions": {path.name: path.read_text() for path in (workdir / PREDICTIONS).iterdir()},
        "result": {name: value for name, value in result.items() if name not in ("seconds", "commit")},
    }
