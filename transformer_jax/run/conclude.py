"""The end of a run: what it is judged by, and `result.json`."""

import time
from collections.abc import Callable
from typing import Any

from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.parallel.peers import Stop
from transformer_jax.run.compile import Program, count_parameters, stack
from transformer_jax.run.identity import run_key
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.provenance import commit
from transformer_jax.run.record import RunRecord
from transformer_jax.run.saved import load_for_all
from transformer_jax.strict_json import only_finite
from transformer_jax.tasks.writing import what_was_cut_off
from transformer_jax.training.state import Lane

Say = Callable[[str], None]
Result = dict[str, Any]
MOST_SKIPPED = 0.1
"""Share of the steps of a run that may be left out; with more it is not what its config describes, and has no score."""


def conclude(program: Program, runs: list[RunRecord], lanes: Lane, stop: Stop, say: Say) -> list[Result]:
    """Evaluates every split with the parameters that `evaluate.checkpoint` names, and writes result.json."""
    started = time.perf_counter()
    choice = program.config.evaluate.checkpoint
    for run in runs:
        _count_skipped(run, say)
        if choice == "best":
            _look_for_best(run, say)
    # A run that diverged has no score; its last good state only fills its lane.
    chosen = [(run.workdir, choice if run.progress.status == "finished" else "last") for run in runs]
    trained = program.layout.put(Trained(stack(load_for_all(program.config, chosen)), lanes))
    measured: dict[str, list[dict[str, Any]]] = {}
    for split in [name for name in ("valid", "test") if name in program.dataset.splits]:
        if stop:
            raise Interruption(max(run.progress.last_step for run in runs))
        measured[split], texts = program.evaluator.measure(trained, program.dataset.splits[split], write=True)
        for lane, run in enumerate(runs):
            if run.progress.status == "finished":
                if texts is not None:
                    run.write_texts(split, texts[lane])
                which = "" if len(runs) == 1 else f" of {run.workdir}"
                say(f"{choice} checkpoint{which}  {split}  {describe_metrics(measured[split][lane])}")
                for line in what_was_cut_off(split, measured[split][lane], program.dataset.splits[split], run.config):
                    say(line)
    seconds = (time.perf_counter() - started) / len(runs)
    results = []
    for lane, run in enumerate(runs):
        progress = run.progress
        metrics = {split: lanes_metrics[lane] for split, lanes_metrics in measured.items()}
        result = {
            "schema": 1,
            "status": progress.status,
            "key": run_key(run.config, program.dataset.fingerprint),
            "seed": run.config.seed,
            "parameters": count_parameters(run.config),
            "steps": progress.last_step,
            "skipped": run.skipped,
            "best_step": progress.best_step,
            "checkpoint": choice,
            "data": program.dataset.summary(),
            "metrics": only_finite(metrics) if progress.status == "finished" else {},
            "seconds": {"train": progress.seconds, "evaluate": seconds, "total": progress.seconds + seconds},
            "executed": progress.executions[-1],
            "executed_before": progress.executions[:-1],
            "commit": commit(),
        }
        run.finish(result)
        results.append(result)
    return results


def _count_skipped(run: RunRecord, say: Say) -> None:
    """Says how many steps were left out; a run that left out too many has diverged, though it was not stopped."""
    progress = run.progress
    if not run.skipped:
        return
    left_out = f"{run.workdir}: {run.skipped} of {progress.last_step} steps were left out, as they were not finite"
    if progress.status == "finished" and run.skipped > MOST_SKIPPED * progress.last_step:
        progress.status = "diverged"
        say(f"{left_out}: more than {MOST_SKIPPED:.0%}, so this run is no measurement.")
    else:
        say(f"{left_out}.")


def _look_for_best(run: RunRecord, say: Say) -> None:
    """A run of which no evaluation was finite has no best checkpoint to be evaluated by: it has diverged."""
    progress = run.progress
    if progress.status == "finished" and progress.best_step is None:
        progress.status = "diverged"
        best = run.config.evaluate.best
        say(f"{run.workdir}: no evaluation gave a finite {best}, so none is the best, and this run is no measurement.")


def describe_metrics(*lanes: dict[str, Any]) -> str:
    """One line for a person: the numbers of a run, or the range of those of several."""
    parts = []
    for name in [name for name, value in lanes[0].items() if isinstance(value, float)]:
        values = [lane[name] for lane in lanes]
        ends = dict.fromkeys(f"{value:.4f}" for value in (min(values), max(values)))
        parts.append(f"{name} {' to '.join(ends)}")
    return "  ".join(parts)
