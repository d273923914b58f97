"""Small sweeps on disk, written without training."""

import json
from pathlib import Path

VALUES = {"base": [0.90, 0.92, 0.91], "no_wo": [0.80, 0.83, 0.81], "one_head": [0.91, 0.90, 0.92]}


def make_row(overrides: dict | None = None, **fields) -> dict:
    row = {"overrides": overrides or {}, "parameters": 1000, "partner": None, "paper": {}, "note": ""}
    return row | fields


def make_sweep(directory: Path, values: dict[str, list[float | None]] = VALUES, **fields) -> Path:
    """A sweep directory; a value of None is a run that has not been started."""
    rows = {name: make_row({"model.knob": name} if name != "base" else {}) for name in values}
    seeds = list(range(max(map(len, values.values()))))
    sweep = {
        "schema": 1, "name": "tiny", "question": "Does it matter?", "hypothesis": "No.", "scale": "smoke",
        "config": "configs/scan.py", "base": "base", "rows": rows, "seeds": seeds, "metric": "test/exact_match",
        "higher_is_better": True, "percent": True, "curve": "valid/nll", "commit": "abc123",
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sweep.json").write_text(json.dumps(sweep | fields))
    for row, row_values in values.items():
        for seed, value in enumerate(row_values):
            if value is not None:
                make_run(directory / "runs" / row / f"seed_{seed}", seed, value)
    return directory


def make_run(directory: Path, seed: int, value: float, **fields) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"seed": seed}))
    lines = [{"step": step, "split": "valid", "nll": 1 + 0.5 / step, "exact_match": value} for step in (50, 100)]
    text = "\n".join(map(json.dumps, [{"step": 50, "split": "train", "loss": 2.0}, *lines]))
    (directory / "metrics.jsonl").write_text(text + '\n{"step": 150, "spl')
    result = {
        "schema": 1, "status": "finished", "seed": seed, "parameters": 1000, "steps": 100,
        "metrics": {"test": {"nll": 1.5, "exact_match": value}}, "seconds": {"total": 60.0 + seed},
        "executed": {"device_kind": "cpu", "jax": "0.10.2"}, "commit": "abc123",
    }  # fmt: skip
    (directory / "result.json").write_text(json.dumps(result | fields))
