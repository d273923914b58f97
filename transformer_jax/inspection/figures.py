"""What attention does over a whole split, in numbers: of every site, layer and head.

B batch, L layers, H heads, T queries, S keys.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Resolved
from transformer_jax.inspection.alignment import errors_of, read_gold
from transformer_jax.inspection.chosen import Choice
from transformer_jax.inspection.over_split import open_over, write
from transformer_jax.inspection.sites import at, tokens_at
from transformer_jax.models.model import Model
from transformer_jax.models.tokens import PADDING, Batch
from transformer_jax.run.saved import Say, to_standard_error
from transformer_jax.vocabulary import EOS

FIGURES = {
    "entropy": "of the weights of a query, in nats",
    "confidence": "the largest weight of a query",
    "distance": "places between a query and what it looks at",
    "previous": "share on the key one place before the query's own",
    "same": "share on the key at the query's own place",
    "next": "share on the key one place after it",
    "first": "share on the first key",
    "last": "share on the last key, beside which padding begins",
    "eos": "share on EOS",
    "similarity": "cosine with the other heads of the layer",
}
"""Name -> what it is: the mean over all queries of all examples."""
TINY = 1e-12


def attention_figures(
    workdir: Path,
    choice: Choice | None = None,
    *,
    gold: Path | None = None,
    checkpoint: str | None = None,
    output: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Say = to_standard_error,
) -> dict[str, Any]:
    """Writes attention_figures.json.

    Args:
      choice: a split or two files; of these all examples.
      gold: alignments of the pairs, in the Pharaoh format, for the alignment error rate.

    Returns:
      Its content: "figures": of each site, layer and head the FIGURES; "alignment": error rates, where there is gold.
    """
    run, trained, sites, examples, facts = open_over(workdir, choice or Choice(), checkpoint, overrides, say)

    def measure(config: Resolved, model: Model, params: Any, batch: Batch) -> Any:
        _, seen = model.look(params, batch)
        return {
            place: figures_of(config, place, batch, jnp.asarray(at(site, "weights", seen), jnp.float32))
            for place, site in sites.items()
        }

    rows = run.evaluator.rows(run.evaluator.compile(measure), trained, examples)
    content: dict[str, Any] = {
        **facts,
        "meaning": FIGURES,
        "figures": [line for place in sites for line in _lines(place, rows[place])],
    }
    if gold is not None:
        content["alignment"] = errors_of(run, trained, examples, read_gold(gold, len(examples)))
    return write(content, "attention_figures.json", workdir, output)


def figures_of(config: Resolved, place: str, batch: Batch, weights_LBHTS: jax.Array) -> dict[str, Any]:
    """Name -> (sums [B, L, H], counts [B]) of a site in a batch; "similarity": [B, L, H, H]."""
    asks_BT, asked_BS, ends_BS, places_T, places_S = _sides(config, place, batch, weights_LBHTS)
    weights = weights_LBHTS * asked_BS[:, None, None, :] * asks_BT[:, None, :, None]
    mass = jnp.sum(weights, axis=-1, keepdims=True)
    shares = weights / jnp.maximum(mass, TINY)
    offset_TS = places_S[None, :] - places_T[:, None]
    last_BS = asked_BS & ~jnp.pad(asked_BS[:, 1:], [(0, 0), (0, 1)])
    unit = weights / jnp.maximum(jnp.linalg.norm(weights, axis=-1, keepdims=True), TINY)

    def share(keys: jax.Array) -> jax.Array:
        return jnp.sum(shares * keys, axis=-1)

    of_queries = {
        "entropy": -jnp.sum(shares * jnp.log(jnp.maximum(shares, TINY)), axis=-1),
        "confidence": jnp.max(weights, axis=-1),
        "distance": share(jnp.abs(offset_TS)),
        "previous": share(offset_TS == -1),
        "same": share(offset_TS == 0),
        "next": share(offset_TS == 1),
        "first": share(places_S == 0),
        "last": share(last_BS[:, None, None, :]),
        "eos": share(ends_BS[:, None, None, :]),
    }
    count_B = jnp.sum(asks_BT, axis=-1).astype(jnp.float32)
    asks = asks_BT[:, None, :]
    found = {name: jnp.moveaxis(jnp.sum(values * asks, axis=-1), 0, 1) for name, values in of_queries.items()}
    found["similarity"] = jnp.einsum("LBHTS,LBGTS->BLHG", unit, unit)
    return {name: (sums, count_B) for name, sums in found.items()}


def _sides(config: Resolved, place: str, batch: Batch, weights_LBHTS: jax.Array) -> tuple[jax.Array, ...]:
    """Which queries and keys are real, which keys are EOS, and the places of both."""
    sides = tokens_at(config.model, place, batch)
    _, size, _, rows, columns = weights_LBHTS.shape
    if sides is None:  # of an image all patches are real; of a place without an example none
        real_B1 = (jnp.asarray(batch["example"]) >= 0)[:, None]
        asks_BT, asked_BS = (jnp.broadcast_to(real_B1, (size, n)) for n in (rows, columns))
        return asks_BT, asked_BS, jnp.zeros_like(asked_BS), jnp.arange(rows), jnp.arange(columns)
    queries, keys = sides
    asks_BT, asked_BS = (side.segments != PADDING for side in sides)
    return asks_BT, asked_BS, keys.ids == EOS, queries.positions[0], keys.positions[0]


def _lines(place: str, measured: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """A line for each layer and head, from [lanes, examples, ...] of each figure."""
    means = {
        name: sums[0].sum(axis=0, dtype=np.float64) / max(float(counts[0].sum(dtype=np.float64)), 1.0)
        for name, (sums, counts) in measured.items()
    }
    similar_LHG = means.pop("similarity")
    layers, heads = means["entropy"].shape
    return [
        {
            "site": place,
            "layer": layer,
            "head": head,
            **{name: float(values[layer, head]) for name, values in means.items()},
            "similarity": float(np.delete(similar_LHG[layer, head], head).mean()) if heads > 1 else None,
            "similar_to": [float(value) for value in similar_LHG[layer, head]],
        }
        for layer in range(layers)
        for head in range(heads)
    ]


def as_text(content: Mapping[str, Any]) -> list[str]:
    """The table, and the error rates of alignment, for people."""
    names = list(FIGURES)
    lines = ["  ".join([f"{'site':<8} layer  head", *(f"{name:>10}" for name in names)])]
    lines += [
        "  ".join(
            [
                f"{line['site']:<8} {line['layer']:>5}  {line['head']:>4}",
                *("         -" if line[name] is None else f"{line[name]:>10.3f}" for name in names),
            ]
        )
        for line in content["figures"]
    ]
    for rate in content.get("alignment", []):
        which = "all heads" if rate["head"] is None else f"head {rate['head']}"
        lines.append(
            f"alignment  layer {rate['layer']}, {which}: error rate {rate['aer']:.4f}, "
            f"precision {rate['precision']:.4f}, recall {rate['recall']:.4f}"
        )
    return lines
