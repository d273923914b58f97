"""Runs that are known already: a finished run is reused by every sweep that asks for the same experiment."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.files import find_irregular, flush
from transformer_jax.run.directory import CHECKPOINTS, RESULT, RUNS, TENSORBOARD, find_link_to, write_json
from transformer_jax.run.identity import is_result_of, read_config, read_result

ORIGIN = "reused_from"  # in the result.json of a run that was reused


def finished_runs(sweeps: Iterable[Path]) -> dict[str, Path]:
    """Key (see `run_key`) -> directory, of the finished runs of those sweeps, but links and what cannot be read."""
    found: dict[str, Path] = {}
    for sweep in sweeps:
        for path in sorted(sweep.glob(f"{RUNS}/*/seed_*/{RESULT}")):
            if not find_link_to(path.parent) and (result := known_result(path.parent)):
                found.setdefault(result["key"], path.parent)
    return found


def known_result(run: Path) -> dict[str, Any] | None:
    """The content of the result.json of a run, if there is one that can be read."""
    try:
        return read_result(run) if (run / RESULT).is_file() else None
    except UserError:
        return None


def reuse(finished: Path, workdir: Path) -> bool:
    """Makes `workdir` a copy of a finished run, whole or not at all; its checkpoints share their bytes on disk.

    Returns:
      Whether it could be done: not if the run has gone meanwhile, or holds links, which could lead anywhere, or pipes,
      or a result of another config than its own.
    """
    draft = workdir.with_name(f".{workdir.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        if find_irregular(finished.rglob("*")) or not is_result_of(finished, read_config(finished)):
            return False
        shutil.copytree(finished, draft, ignore=shutil.ignore_patterns("lock", TENSORBOARD, CHECKPOINTS, "*.draft"))
        if (finished / CHECKPOINTS).is_dir():
            shutil.copytree(finished / CHECKPOINTS, draft / CHECKPOINTS, copy_function=_link)
        write_json(draft / RESULT, {**read_result(draft), ORIGIN: os.path.relpath(finished, workdir)})
        flush(draft)
        shutil.rmtree(workdir, ignore_errors=True)
        draft.rename(workdir)
    except (OSError, UserError):
        return False
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _link(source: str, target: str) -> None:
    """Checkpoints are never changed in place, only replaced or deleted, so two runs may share them."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
