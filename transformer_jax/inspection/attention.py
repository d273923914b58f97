"""Which word looks at which: the attention weights of every site, layer and head, as arrays, as JSON and as a page."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.errors import UserError
from transformer_jax.files import write_atomically
from transformer_jax.inspection.chosen import Choice, choose
from transformer_jax.inspection.over_split import INSPECTION
from transformer_jax.inspection.sites import WITH_SOURCE, Site, at, names_at, sites_of, spelled
from transformer_jax.models.build import build_model
from transformer_jax.models.tokens import Batch
from transformer_jax.report.attention import attention_page
from transformer_jax.run.directory import write_json
from transformer_jax.run.saved import SavedRun, Say, open_run, to_standard_error

ATTENTION = "attention"
AXES = ["layer", "head", "query", "key"]


def inspect_attention(
    workdir: Path,
    choice: Choice | None = None,
    *,
    checkpoint: str | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    scores: bool = False,
    output: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Say = to_standard_error,
) -> dict[str, Any]:
    """Writes attention.npz, attention.json and attention.html.

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.
      layers, heads: those that are written, from 0; None: all.
      scores: write what the weights are made of too: scaled, with what positions add, before masks.
      output: the directory to write to; None: inspection/ of the run.

    Returns:
      The content of attention.json, and "files": the paths of all three.

    Raises:
      UserError: there is nothing to look at, or no such layer or head.
    """
    run = open_run(workdir, overrides)
    sites = sites_of(run.config)
    _check(sites, layers, heads)
    used, trained = run.load(checkpoint)
    params = run.params_of(trained)
    look = attention_of(run, sites)
    arrays: dict[str, np.ndarray] = {}
    examples = []
    for number, (name, batch) in enumerate(choose(run, trained, choice or Choice(), say)):
        seen = jax.tree.map(np.asarray, look(params, batch))
        described = []
        for place, site in sites.items():
            kept = {what: _kept(array, layers, heads) for what, array in seen[place].items()}
            prefix = f"{number}.{place}"
            arrays |= {f"{prefix}.{what}": array for what, array in kept.items() if scores or what == "weights"}
            described.append(_described(run, place, site, batch, kept["weights"], prefix, layers, heads))
        examples.append({"name": name, "sites": described})
    content = {
        "schema": 1,
        "run": str(workdir),
        "family": run.config.model.family,
        "checkpoint": used,
        "axes": AXES,
        "arrays": {name: list(array.shape) for name, array in arrays.items()},
        "examples": examples,
    }
    files = _write(output or workdir / INSPECTION, content, arrays)
    return {**content, "files": files}


def attention_of(run: SavedRun, sites: Mapping[str, Site]) -> Callable[[Any, Batch], dict[str, dict[str, jax.Array]]]:
    """(params, batch of one example) -> place -> "weights" and "scores", [layer, head, query, key] each."""

    @jax.jit
    def look(params: Any, batch: Batch) -> dict[str, dict[str, jax.Array]]:
        _, seen = build_model(run.config.model).look(params, batch)
        return {
            place: {name: at(site, name, seen)[:, 0].astype(jnp.float32) for name in ("weights", "scores")}
            for place, site in sites.items()
        }

    return look


def _check(sites: Mapping[str, Site], layers: Sequence[int] | None, heads: Sequence[int] | None) -> None:
    for option, chosen, most in (
        ("layers", layers, max(site.layers for site in sites.values())),
        ("heads", heads, max(site.heads for site in sites.values())),
    ):
        if wrong := [number for number in chosen or [] if number >= most]:
            raise UserError(f"--{option}={wrong[0]}: the model has {most}, counted from 0.")


def _kept(array: np.ndarray, layers: Sequence[int] | None, heads: Sequence[int] | None) -> np.ndarray:
    """Stacks of different depths have different layers; those that are not there are left out."""
    return array[_numbers(layers, array.shape[0])][:, _numbers(heads, array.shape[1])]


def _numbers(chosen: Sequence[int] | None, count: int) -> list[int]:
    return [number for number in (range(count) if chosen is None else chosen) if number < count]


def _described(
    run: SavedRun,
    place: str,
    site: Site,
    batch: Batch,
    weights: np.ndarray,
    prefix: str,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
) -> dict[str, Any]:
    queries, keys = names_at(run.config, run.assets, place, batch, weights.shape[-1])
    predicts = []
    if place in (WITH_SOURCE, "decoder") and "targets" in batch:
        predicts = spelled(np.asarray(batch["targets"])[0].tolist(), run.assets.target)
    return {
        "site": place,
        "weights": f"{prefix}.weights",
        "queries": queries,
        "keys": keys,
        "predicts": predicts,
        "layers": _numbers(layers, site.layers),
        "heads": _numbers(heads, site.heads),
    }


def _write(directory: Path, content: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    paths = {kind: directory / f"{ATTENTION}.{kind}" for kind in ("npz", "json", "html")}
    directory.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write_atomically(paths["npz"], packed.getvalue())
    write_json(paths["json"], content)
    write_atomically(paths["html"], attention_page(content, arrays).encode())
    return {kind: str(path) for kind, path in paths.items()}
