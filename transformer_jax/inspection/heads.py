"""What each head is worth: by leaving it out, and by the gradient of a factor on its output (Michel et al. 2019).

B batch, L layers, H heads, N all heads of all sites.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Resolved
from transformer_jax.data import Examples
from transformer_jax.evaluation.evaluator import Trained
from transformer_jax.inspection.chosen import Choice
from transformer_jax.inspection.over_split import open_over, write
from transformer_jax.inspection.sites import Site, factors
from transformer_jax.models.model import Model
from transformer_jax.models.tokens import Batch
from transformer_jax.run.saved import SavedRun, Say, to_standard_error
from transformer_jax.tasks import task_of

AT_A_TIME = 8
"""Masks that are evaluated together."""
STEPS_OF_CURVE = 10
Z_95 = 1.959964


class Head(NamedTuple):
    """A head; layer and number from 0. As text: encoder.1.3."""

    site: str
    layer: int
    number: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


def heads_of(sites: Mapping[str, Site]) -> list[Head]:
    """All heads, in the order of sites, layers and numbers."""
    return [
        Head(place, layer, number)
        for place, site in sites.items()
        for layer in range(site.layers)
        for number in range(site.heads)
    ]


def masks(sites: Mapping[str, Site], left_out: Sequence[Sequence[Head]]) -> dict[str, np.ndarray]:
    """Site -> float32[masks, L, H], 0 at the heads that a mask leaves out, else 1."""
    found = {place: np.ones((len(left_out), site.layers, site.heads), np.float32) for place, site in sites.items()}
    for number, heads in enumerate(left_out):
        for head in heads:
            found[head.site][number, head.layer, head.number] = 0
    return found


def inspect_heads(
    workdir: Path,
    choice: Choice | None = None,
    *,
    checkpoint: str | None = None,
    output: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Say = to_standard_error,
) -> dict[str, Any]:
    """Writes heads.json: what each head is worth, and what is left when the least important ones are left out.

    Args:
      choice: a split or two files; of these all examples.
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.
      output: the directory to write to; None: inspection/ of the run.

    Returns:
      Its content, and "file".
    """
    run, trained, sites, examples, facts = open_over(workdir, choice or Choice(), checkpoint, overrides, say)
    found = importance(run, trained, sites, examples)
    content = {**facts, **found, "curves": curves(run, trained, sites, examples, found["heads"])}
    return write(content, "heads.json", workdir, output)


def importance(run: SavedRun, trained: Trained, sites: Mapping[str, Site], examples: Examples) -> dict[str, Any]:
    """ "nll" with all heads, and "heads": of each what it costs to leave it out, and its gradient.

    cost: the nll, a token, without the head less that with all. gradient: the mean over examples of |d nll / d factor|;
    gradient_in_layer: divided by the length of the vector of those of its layer. Each ± half of a 95 % interval over
    examples.
    """
    heads = heads_of(sites)
    sums_MB, counts_B = nll_without(run, trained, sites, examples, [[], *[[head] for head in heads]])
    gradients = gradients_of(run, trained, sites, examples)
    total = counts_B.sum()
    real = np.flatnonzero(counts_B)
    lines = []
    for number, head in enumerate(heads, 1):
        differences_B = sums_MB[number] - sums_MB[0]
        cost = differences_B.sum() / total
        spread = math.sqrt(np.sum((differences_B - cost * counts_B) ** 2)) / total
        of_examples = np.abs(gradients[head.site][real, head.layer, head.number])
        of_layer = np.abs(gradients[head.site][real, head.layer]).mean(axis=0)
        lines.append(
            {
                **head._asdict(),
                "cost": float(cost),
                "cost_interval": Z_95 * spread,
                "gradient": float(of_examples.mean()),
                "gradient_interval": Z_95 * float(of_examples.std()) / math.sqrt(len(real)),
                "gradient_in_layer": float(of_examples.mean() / max(np.linalg.norm(of_layer), 1e-30)),
            }
        )
    return {"nll": float(sums_MB[0].sum() / total), "heads": lines}


def nll_without(
    run: SavedRun,
    trained: Trained,
    sites: Mapping[str, Site],
    examples: Examples,
    left_out: Sequence[Sequence[Head]],
) -> tuple[np.ndarray, np.ndarray]:
    """Of each example the sum of its nll without each of these sets of heads, [sets, B], and the count, [B]."""

    masks_M = masks(sites, left_out)

    def measure(config: Resolved, model: Model, params: Any, batch: Batch) -> Any:
        def without(mask: Any) -> jax.Array:
            return _nll(config, dataclasses.replace(model, given={"heads": factors(sites, mask)}), params, batch)[0]

        sums_MB = jax.lax.map(without, masks_M, batch_size=AT_A_TIME)
        return jnp.swapaxes(sums_MB, 0, 1), _nll(config, model, params, batch)[1]

    sums, counts = run.evaluator.rows(run.evaluator.compile(measure), trained, examples)
    return np.asarray(sums[0], np.float64).T, np.asarray(counts[0], np.float64)


def gradients_of(
    run: SavedRun, trained: Trained, sites: Mapping[str, Site], examples: Examples
) -> dict[str, np.ndarray]:
    """Site -> float32[B, L, H]: how the nll of an example, a token, changes with a factor on each head, at 1."""

    def measure(config: Resolved, model: Model, params: Any, batch: Batch) -> Any:
        size = len(next(iter(batch.values())))
        ones = {place: jnp.ones((site.layers, size, site.heads)) for place, site in sites.items()}

        def total(of_place: Any) -> jax.Array:
            sums_B, counts_B = _nll(
                config, dataclasses.replace(model, given={"heads": factors(sites, of_place)}), params, batch
            )
            return jnp.sum(sums_B / jnp.maximum(counts_B, 1))  # examples do not see each other

        return {place: jnp.moveaxis(found, 1, 0) for place, found in jax.grad(total)(ones).items()}

    found = run.evaluator.rows(run.evaluator.compile(measure), trained, examples)
    return {place: np.asarray(of_lanes[0]) for place, of_lanes in found.items()}


def curves(
    run: SavedRun,
    trained: Trained,
    sites: Mapping[str, Site],
    examples: Examples,
    lines: Sequence[Mapping[str, Any]],
) -> dict[str, list[dict[str, float]]]:
    """By "cost" and by "gradient": the nll on the same examples with ever fewer heads, the least important gone first.

    All sets of heads are measured in one program.
    """
    numbers = sorted({round(step * len(lines) / STEPS_OF_CURVE) for step in range(STEPS_OF_CURVE + 1)})
    orders = {
        by: [Head(line["site"], line["layer"], line["number"]) for line in sorted(lines, key=lambda line: line[by])]
        for by in ("cost", "gradient")
    }
    left_out = [order[:number] for order in orders.values() for number in numbers]
    sums_MB, counts_B = nll_without(run, trained, sites, examples, left_out)
    points = [
        {"kept": 1 - len(heads) / len(lines), "nll": float(sums_B.sum() / counts_B.sum())}
        for heads, sums_B in zip(left_out, sums_MB, strict=True)
    ]
    return {by: points[k * len(numbers) : (k + 1) * len(numbers)] for k, by in enumerate(orders)}


def _nll(config: Resolved, model: Model, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    return task_of(config).measure(config, model, params, batch, None)["nll"]


def as_text(content: Mapping[str, Any]) -> list[str]:
    """The table, the dearest head first, and the curves, for people."""
    lines = [f"{content['split']}: nll {content['nll']:.4f} with all heads", ""]
    lines.append(f"{'head':<14} {'left out, nll':>20} {'gradient':>20} {'in its layer':>13}")
    for line in sorted(content["heads"], key=lambda line: -line["cost"]):
        name = str(Head(line["site"], line["layer"], line["number"]))
        cost, gradient = (f"{line[of]:+.4f} ± {line[f'{of}_interval']:.4f}" for of in ("cost", "gradient"))
        lines.append(f"{name:<14} {cost:>20} {gradient.removeprefix('+'):>20} {line['gradient_in_layer']:>13.3f}")
    for by, points in content["curves"].items():
        lines.append("")
        lines.append(f"nll by share of heads kept, the least important by {by} left out first")
        lines.append("  ".join(f"{100 * point['kept']:.0f} %: {point['nll']:.3f}" for point in points))
    return lines
