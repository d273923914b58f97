"""What was measured, on which machine and by which versions: a JSON file and a picture of it."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from transformer_jax.compilation import available_cpus
from transformer_jax.files import write_atomically
from transformer_jax.run.provenance import commit
from transformer_jax.strict_json import to_json


def write(name: str, rows: Sequence[dict[str, Any]], directory: Path) -> list[Path]:
    """Adds the rows to `NAME.json` of the directory, in place of older ones of the same model, and draws them all."""
    path = directory / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    measured = [{**row, "measured": _circumstances()} for row in rows]
    kept = dict(enumerate(measured))
    if all("model" in row for row in measured):
        kept = {row["model"]: row for row in [*old, *measured]}
    write_atomically(path, to_json({"benchmark": name, "rows": list(kept.values())}, indent=1).encode())
    drawable = [row for row in kept.values() if "targets_per_second" in row]
    if not drawable:
        return [path]
    picture = directory / f"{name}.svg"
    _draw(drawable).savefig(picture, metadata={"Date": None})
    return [path, picture]


def _circumstances() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "device": f"{device.device_kind} ({device.platform})",
        "processors": len(available_cpus()),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }


def _draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A panel for each model: real targets (tokens, images) a second of all that were measured."""
    figure = Figure(figsize=(8, 0.6 + sum(0.5 + 0.26 * len(row["targets_per_second"]) for row in rows)))
    heights = [len(row["targets_per_second"]) + 1 for row in rows]
    panels = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for row, panel in zip(rows, panels, strict=True):
        speeds = row["targets_per_second"]
        names = list(reversed(speeds))
        bars = panel.barh(names, [speeds[name] for name in names])
        for name, bar in zip(names, bars, strict=True):
            bar.set_color("#3366aa" if name == "ours" else "#b0b0b0")
            ratio = row["ours_over"].get(name)
            text = f"{speeds[name]:,.0f}" + (f"  (ours is {ratio:.2f} times as fast)" if ratio else "")
            panel.annotate(text, (bar.get_width(), bar.get_y() + bar.get_height() / 2), (3, 0),
                           textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        panel.set_xlim(0, 1.6 * max(speeds.values()))
        panel.set_title(f"{row['model']}: real targets (tokens, images) a second", loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    figure.tight_layout()
    return figure
