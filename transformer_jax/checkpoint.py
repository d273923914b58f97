"""Checkpoints of one run: saved in the background, verified when read, averaged.

A checkpoint is a directory `checkpoints/<step>` with Orbax's `state`, `progress.json` (what the loop remembers beside
the state) and `manifest.json` (a BLAKE2 hash of every file). It gets its name by one rename when all of it is written,
so a run that is killed leaves no half checkpoint; the hashes tell of files damaged later, which Orbax would load.
"""

import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import io
import json
import logging
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp

from transformer_jax.config import Config, TrainConfig
from transformer_jax.errors import UserError
from transformer_jax.files import find_irregular, flush, open_regular, read_bytes, sync
from transformer_jax.strict_json import to_json

SCHEMA = 2
READABLE = (1, 2)
MANIFEST, PROGRESS, STATE = "manifest.json", "progress.json", "state"
UNFINISHED, DAMAGED = "unfinished-", "damaged-"  # before the step, in the names of directories that are no checkpoints
Tree = Any


def is_scheduled(train: TrainConfig, step: int) -> bool:
    """Whether every run saves at `step`: at evaluations, each `checkpoint_every`, at the end.

    Other checkpoints are of runs that were stopped. They are not counted where checkpoints are kept or averaged, so
    that a stop changes nothing.
    """
    every = (train.evaluate_every, train.checkpoint_every)
    return step == train.steps or any(n is not None and step % n == 0 for n in every)


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, directory: Path, warn: Callable[[str], None] = print):
        self._directory = directory.absolute()
        self._warn = warn
        self._worker = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: concurrent.futures.Future[None] | None = None
        _quiet_orbax()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if re.fullmatch("[0-9]{8,}", path.name))

    def save(self, step: int, state: Tree, progress: dict[str, Any]) -> None:
        """Starts to write the state, which must be on the host; waits for the save before it.

        Raises:
          UserError: the save before this one failed (a full disk, say).
        """
        self.wait()
        # Made into text now: the loop keeps changing what `progress` refers to.
        remembered = to_json({"schema": SCHEMA, "step": step, **progress})
        self._pending = self._worker.submit(self._write, step, state, remembered)

    def wait(self) -> None:
        """Until the last save is complete; UserError if it failed."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self._directory}: the checkpoint could not be written ({error}). Earlier checkpoints are intact."
            ) from error

    def _write(self, step: int, state: Tree, remembered: str) -> None:
        self._directory.mkdir(exist_ok=True)  # not its parents: a run that was moved is not begun anew in its old place
        unfinished = self._directory / f"{UNFINISHED}{step}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(unfinished / STATE, state)
            (unfinished / PROGRESS).write_text(remembered)
            (unfinished / MANIFEST).write_text(to_json(_hashes(unfinished), indent=1))
            flush(unfinished)
            self._delete(step)
            unfinished.rename(self._path(step))
            sync(self._directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def delete(self, steps: Iterable[int]) -> None:
        """Deletes the checkpoints at those steps; one that is just being read is left for the next call."""
        for step in steps:
            with self._lock(step, fcntl.LOCK_EX) as free:
                if free:
                    self._delete(step)

    @contextlib.contextmanager
    def _lock(self, step: int, kind: int) -> Iterator[bool]:
        """Holds a checkpoint; False where another process has it. Without a manifest or locks nothing is held."""
        with contextlib.ExitStack() as stack:
            free = True
            try:
                file = stack.enter_context(open_regular(self._path(step) / MANIFEST))
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:
                pass
            yield free

    def _delete(self, step: int) -> None:
        """Takes its name away first: who reads it meanwhile never takes half of it for the whole."""
        nameless = self._directory / f"{UNFINISHED}deletion-{step}"
        shutil.rmtree(nameless, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._path(step).rename(nameless)
        shutil.rmtree(nameless, ignore_errors=True)

    def prune(self, train: TrainConfig, best: int | None) -> None:
        """Deletes checkpoints but the newest, that of step `best` and the last `train.keep_last` scheduled ones."""
        steps = self.steps()
        scheduled = [step for step in steps if is_scheduled(train, step)]
        self.delete({*steps} - {*steps[-1:], *scheduled[-train.keep_last :], best})

    def cut_back(self, step: int) -> None:
        """Deletes what lies after `step`, where a run resumes, and what a killed process left unfinished."""
        for later in [later for later in self.steps() if later > step]:
            self._delete(later)
        if self._directory.is_dir():
            for path in self._directory.glob(f"{UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, template: Tree, step: int) -> tuple[Tree, dict[str, Any]]:
        """State (NumPy arrays of the template's shapes and dtypes) and progress of the checkpoint at `step`.

        Raises:
          UserError: there is none, it is damaged, of another schema, or of another model.
        """
        if step not in self.steps():
            raise UserError(f"{self._directory}: no checkpoint at step {step}. There are: {self.steps() or 'none'}.")
        path = self._path(step)
        with self._lock(step, fcntl.LOCK_SH):  # Orbax fills standard error where files vanish while it reads them
            if damage := find_damage(path):
                raise UserError(
                    f"{path}: the checkpoint is damaged ({damage}). Name another step, or resume a run that is not "
                    "finished: what it needs is trained again."
                )
            progress = self.progress(step)
            if progress["schema"] == 1:
                state = from_schema_1(_read_state(path / STATE, to_schema_1(template)))
            else:
                state = _read_state(path / STATE, template)
        if not path.is_dir():
            raise UserError(f"{path}: the checkpoint was deleted while it was read.")
        return state, progress

    def progress(self, step: int) -> dict[str, Any]:
        """What was saved beside the state; UserError if it cannot be read or is of another schema."""
        path = self._path(step) / PROGRESS
        try:
            progress = json.loads(read_bytes(path))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read ({type(error).__name__}): the checkpoint is damaged.") from error
        schema = progress.get("schema") if isinstance(progress, dict) else None
        if schema not in READABLE:
            raise UserError(f"{path}: checkpoint of schema {schema}, but this program reads up to schema {SCHEMA}.")
        return progress

    def find_damaged(self, steps: Iterable[int]) -> dict[int, str]:
        """Which of the checkpoints at those steps are damaged, and what is wrong with each."""
        found = {step: find_damage(self._path(step)) for step in steps}
        return {step: damage for step, damage in found.items() if damage is not None}

    def newest_good(self, at_most: int | None = None) -> int | None:
        """Step of the newest undamaged checkpoint; damaged ones are named and set aside. None if there never was one.

        Raises:
          UserError: every checkpoint is damaged: the run is never silently started anew.
        """
        steps = [step for step in self.steps() if at_most is None or step <= at_most]
        for step in reversed(steps):
            damage = find_damage(self._path(step))
            if damage is None:
                return step
            aside = self._directory / f"{DAMAGED}{step}"
            shutil.rmtree(aside, ignore_errors=True)
            self._path(step).rename(aside)
            self._warn(f"Checkpoint {step} is damaged ({damage}); it was set aside as {aside}.")
        if self._directory.is_dir() and any(self._directory.glob(f"{DAMAGED}*")):
            raise UserError(f"{self._directory}: every checkpoint is damaged. Delete the run directory to start anew.")
        return None

    def _path(self, step: int) -> Path:
        return self._directory / f"{step:08d}"


STACKS = ("encoder", "decoder")


def to_schema_1(state: Tree) -> Tree:
    """The state with its parameters as schema 1 named them: "encoder_layers" where "encoder" now has "layers"."""

    def renamed(params: dict[str, Tree]) -> dict[str, Tree]:
        flat = {name: tree for name, tree in params.items() if name not in STACKS}
        return flat | {f"{stack}_{part}": tree for stack in STACKS for part, tree in params.get(stack, {}).items()}

    return _of_params(renamed, state, "encoder")


def from_schema_1(state: Tree) -> Tree:
    """The inverse of `to_schema_1`."""

    def renamed(params: dict[str, Tree]) -> dict[str, Tree]:
        nested: dict[str, Tree] = {}
        for name, tree in params.items():
            stack, _, part = name.partition("_")
            if stack in STACKS:
                nested.setdefault(stack, {})[part] = tree
            else:
                nested[name] = tree
        return nested

    return _of_params(renamed, state, "encoder_layers")


def _of_params(rename: Callable[[dict[str, Tree]], dict[str, Tree]], state: Tree, mark: str) -> Tree:
    """The state with every tree that is made as the parameters are renamed; these have an entry `mark`."""

    def is_params(node: Any) -> bool:
        return isinstance(node, dict) and mark in node

    return jax.tree.map(lambda node: rename(node) if is_params(node) else node, state, is_leaf=is_params)


@functools.cache
def _quiet_orbax() -> None:
    """From now on Orbax writes to standard error neither what it raises as well, nor what its threads meet later."""
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())  # its tasks, once dropped
    hook = sys.unraisablehook

    def not_of_orbax(unraisable: Any) -> None:
        if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = not_of_orbax


def _checkpointer() -> ocp.Checkpointer:
    """Writes and reads by this process alone, also where it has others, which Orbax would wait for."""
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options
    )


def _read_state(path: Path, template: Tree) -> Tree:
    with _checkpointer() as checkpointer:
        try:
            _check_arrays(path, checkpointer.metadata(path).item_metadata.tree, template)
            item = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), template)
            return checkpointer.restore(path, item=item)
        except UserError:
            raise
        except Exception as error:  # files that are not as Orbax wrote them may raise anything in it
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{path}: the checkpoint is not of this model ({reason}).") from error


def _check_arrays(path: Path, stored: Tree, template: Tree) -> None:
    """Refuses arrays of another shape or type before there is memory for them: a stranger may have written these."""
    expected = _leaves_by_name(template)
    for name, array in _leaves_by_name(stored).items():
        if name in expected and array.shape != expected[name].shape:
            raise UserError(f"{path}: {name} has shape {array.shape}, but the model's has {expected[name].shape}.")
        if name in expected and array.dtype != expected[name].dtype:
            raise UserError(f"{path}: {name} is of type {array.dtype}, but the model's is {expected[name].dtype}.")
        if math.prod(array.storage.chunk_shape) > max(math.prod(array.shape), 1):
            raise UserError(
                f"{path}: {name} is stored in parts that are larger than itself: the checkpoint is damaged."
            )


def _leaves_by_name(tree: Tree) -> dict[str, Any]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in named}


def _files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != MANIFEST)


def _hashes(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): _hash(file) for file in _files(path)}


def _hash(file: Path) -> str:
    with open_regular(file) as stream:
        return hashlib.file_digest(cast(io.BufferedReader, stream), lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def find_damage(path: Path) -> str | None:
    """What differs from the checkpoint's manifest, or None.

    Orbax would follow links and wait for pipes: what holds any is damaged.
    """
    try:
        if irregular := find_irregular([path, *sorted(path.rglob("*"))]):
            return irregular
        expected = json.loads(read_bytes(path / MANIFEST))
    except (OSError, ValueError, RecursionError):
        expected = None
    if not isinstance(expected, dict):
        return f"{MANIFEST} is missing or unreadable"
    try:
        found = _hashes(path)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    for name in sorted({*expected, *found}):
        if name not in found:
            return f"{name} is missing"
        if found[name] != expected.get(name):
            return f"{name} has changed" if name in expected else f"{name} does not belong to it"
    return None


def parse_checkpoint(choice: str, field: str) -> tuple[str, int]:
    """("best" | "last", 0), ("average", N) or ("step", N); UserError if it is none of them."""
    name, _, number = choice.partition(":")
    if choice in ("best", "last"):
        return choice, 0
    if re.fullmatch("[0-9]{1,12}", choice):
        return "step", int(choice)
    if name == "average" and re.fullmatch("[0-9]{1,12}", number) and int(number) > 0:
        return "average", int(number)
    raise UserError(f"{field} = {choice!r} is not allowed. Allowed: best, last, a step, or average:N.")


def check(config: Config) -> None:
    """Refuses an `evaluate.checkpoint` that the run will not make, or not keep.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    kind, count = parse_checkpoint(config.evaluate.checkpoint, "evaluate.checkpoint")
    if kind == "step":
        raise UserError(
            f"evaluate.checkpoint = {config.evaluate.checkpoint!r}: a step may be deleted before the end. Allowed: "
            "best, last, or average:N."
        )
    train, field = config.train, f"evaluate.checkpoint = 'average:{count}'"
    if train.checkpoint_every is not None and train.checkpoint_every > train.steps:
        raise UserError(f"train.checkpoint_every = {train.checkpoint_every} is beyond train.steps = {train.steps}.")
    if kind != "average":
        return
    if count > train.keep_last:
        raise UserError(f"{field} needs more checkpoints than train.keep_last = {train.keep_last} keeps.")
    every = [n for n in (train.evaluate_every, train.checkpoint_every) if n is not None]
    made = {train.steps, *(k * n for n in every for k in range(1, count + 1) if k * n < train.steps)}
    if count > len(made):
        raise UserError(f"{field} needs more checkpoints than the {len(made)} of train.steps = {train.steps}.")
    if train.patience is not None and count > train.patience + 1:
        raise UserError(
            f"{field} needs more checkpoints than there may be with train.patience = {train.patience}: at least "
            f"{train.patience + 1} evaluations come before an early stop."
        )


def average(trees: list[Tree]) -> Tree:
    """The mean of parameters, leaf by leaf, summed in float64 (Section 6.1 averages the last checkpoints)."""
    total = functools.reduce(lambda a, b: jax.tree.map(np.add, a, b), [_as_float64(tree) for tree in trees])
    return jax.tree.map(lambda s, a: (s / len(trees)).astype(a.dtype), total, trees[0])


def _as_float64(tree: Tree) -> Tree:
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
