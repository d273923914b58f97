"""Which test of a difference keeps its level, which has power, and does seeds on demand keep the error of a family?

    ./launch.sh benchmark statistics --seed=1 --spreads=1,10,100 --sweeps=10000

Sweeps are drawn, not trained: a base and four rows, the first of which has another spread than the others (`spreads`),
and whose seeds share some of their luck (correlation 0 or 0.7). A figure is the percentage of sweeps in which the test
of that row has p <= 0.05: of errors where it does not differ from the base, of power where it does. The level of seeds
on demand is that of the program itself (`transformer_jax.report.rounds`). What was adopted: docs/statistics.md.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from transformer_jax.cli import ROOT
from transformer_jax.report.comparison import all_pairs
from transformer_jax.report.read import read_sweep
from transformer_jax.report.results import Row, Run, Sweep
from transformer_jax.report.rounds import settle
from transformer_jax.report.statistics import LEVEL, correlation

ROWS, SEEDS, CORRELATIONS = 4, (3, 5, 10), (0.0, 0.7)
PILOT = 5
"""Seeds of the other data by which a test may be declared."""
FAILS, FAILS_BY = 0.2, 10.0
"""The share of seeds that fail, and by how many standard deviations."""
EFFECT = 2.0
"""The true difference of a row where power is asked for, in standard deviations."""
TAILS = {
    "normal": "normal",
    "all fail": "a fifth of the seeds of every row and the base fail",
    "row fails": "a fifth of the seeds of that row fail, and its mean is that of the base",
}
ROUNDS = (5, 10, 20)


# --- What is drawn ---


def draw(rng: np.random.Generator, sweeps: int, seeds: int, spread: float, shared: float, tails: str) -> np.ndarray:
    """Values [sweeps, base and rows, seeds] whose means are all 0; `spread` is that of the first row."""
    luck = np.sqrt(shared) * rng.normal(size=(sweeps, 1, seeds))
    values = luck + np.sqrt(1 - shared) * rng.normal(size=(sweeps, 1 + ROWS, seeds))
    fails = FAILS_BY * ((rng.random(values.shape) < FAILS) - FAILS)
    if tails == "all fail":
        values = values - fails
    elif tails == "row fails":
        values[:, 1] -= fails[:, 1]
    values[:, 1] *= spread
    return values


# --- The tests: p of every row against the base, [sweeps, rows] ---


def _p(mean: np.ndarray, variance: np.ndarray, df: Any) -> np.ndarray:
    return np.asarray(2 * special.stdtr(df, -np.abs(mean) / np.sqrt(variance)))


def paired(values: np.ndarray) -> np.ndarray:
    """Student's, of the differences seed by seed."""
    differences, n = values[:, 1:] - values[:, :1], values.shape[-1]
    return _p(differences.mean(-1), differences.var(-1, ddof=1) / n, n - 1)


def welch(values: np.ndarray) -> np.ndarray:
    """Welch's, of independent samples."""
    n = values.shape[-1]
    variances = values.var(-1, ddof=1) / n
    ours, base = variances[:, 1:], variances[:, :1]
    df = (ours + base) ** 2 * (n - 1) / (ours**2 + base**2)
    return _p(values[:, 1:].mean(-1) - values[:, :1].mean(-1), ours + base, df)


def pooled(values: np.ndarray) -> np.ndarray:
    """Student's of independent samples with one variance, of the base and all rows: that of Dunnett (1955)."""
    groups, n = values.shape[1:]
    variance = values.var(-1, ddof=1).mean(1, keepdims=True)
    return _p(values[:, 1:].mean(-1) - values[:, :1].mean(-1), 2 * variance / n, groups * (n - 1))


def moderated(values: np.ndarray) -> np.ndarray:
    """The paired test with variances drawn towards each other, as much as they seem alike (Smyth 2004)."""
    differences, n = values[:, 1:] - values[:, :1], values.shape[-1]
    df, variances = n - 1, differences.var(-1, ddof=1)
    logs = np.log(variances) - special.digamma(df / 2) + np.log(df / 2)
    beyond = logs.var(1, ddof=1, keepdims=True) - special.polygamma(1, df / 2)
    differ = beyond > 1e-6
    prior_df = np.where(differ, 2 * _trigamma_inverse(np.where(differ, beyond, 1.0)), 1e6)
    prior = np.exp(logs.mean(1, keepdims=True) + special.digamma(prior_df / 2) - np.log(prior_df / 2))
    variance = (prior_df * prior + df * variances) / (prior_df + df)
    return _p(differences.mean(-1), variance / n, np.minimum(prior_df + df, ROWS * df))


def _trigamma_inverse(x: np.ndarray) -> np.ndarray:
    y = 0.5 + 1 / x
    for _ in range(12):  # Newton's method, as in Smyth's appendix
        trigamma = special.polygamma(1, y)
        y = y + trigamma * (1 - trigamma / x) / special.polygamma(2, y)
    return np.asarray(y)


def break_even(seeds: int) -> float:
    """The correlation at which both tests have intervals of one width, at equal spreads."""
    of_two, of_one = (special.stdtrit(df, 1 - LEVEL / 2) for df in (2 * (seeds - 1), seeds - 1))
    return float(1 - (of_two / of_one) ** 2)


def correlations(values: np.ndarray) -> np.ndarray:
    """Of every row and the base over the seeds."""
    centred = values - values.mean(-1, keepdims=True)
    ours, base = centred[:, 1:], centred[:, :1]
    return np.asarray((ours * base).sum(-1) / np.sqrt((ours**2).sum(-1) * (base**2).sum(-1)))


def chosen(values: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """The paired test where that correlation is above break-even, else Welch's."""
    return np.where(correlation > break_even(values.shape[-1]), paired(values), welch(values))


# --- What is asked ---


def errors(rng: np.random.Generator, sweeps: int, spread: float, seeds: int, shared: float, tails: str, effect: float):
    """Percent of sweeps in which each test of the first row says that it differs."""
    values, other = (draw(rng, sweeps, n, spread, shared, tails) for n in (seeds, PILOT))
    values[:, 1] += effect * spread
    found = {test.__name__: test(values) for test in (paired, welch, pooled, moderated)}
    found["declared from other data"] = chosen(values, np.median(correlations(other), axis=1, keepdims=True))
    found["chosen by the same data"] = chosen(values, correlations(values))
    return {name: round(100 * float((p[:, 0] <= LEVEL).mean()), 1) for name, p in found.items()}


def sweep_of(values: np.ndarray, margin: float) -> Sweep:
    """A finished sweep of rounds with these values [base and rows, seeds]."""
    names = ["base", *(f"row_{k}" for k in range(1, len(values)))]
    runs = [
        Run(name, seed, None, "finished", "", float(value), {}, {})
        for name, of_row in zip(names, values, strict=True)
        for seed, value in enumerate(of_row)
    ]
    return Sweep(
        name="drawn", question="", hypothesis="", scale="", config="", base="base", curve="", commit="",
        rows={name: Row(name, {}, None, None, {}, "", name) for name in names}, seeds=tuple(range(values.shape[1])),
        metric="test/x", higher_is_better=True, percent=False, runs=tuple(runs), margin=margin, rounds=ROUNDS,
    )  # fmt: skip


def on_demand(rng: np.random.Generator, sweeps: int, spread: float, shared: float, tails: str) -> dict[str, float]:
    """Percent of sweeps with any false difference, and with any false equality; power, and seeds that were taken.

    The margin is four standard deviations of a mean of 20 seeds' difference. Rows a margin apart are not equal.
    """
    margin = 4 * np.sqrt(2 / ROUNDS[-1])
    apart = np.array([0.0, *itertools.islice(itertools.cycle([margin, -margin]), ROWS)])[:, None]
    counts = dict.fromkeys(("false difference", "false equality", "equality seen", "difference seen", "seeds"), 0.0)
    for values in draw(rng, sweeps, ROUNDS[-1], spread, shared, tails):
        same, differing = (
            settle(sweep, all_pairs(sweep)) for sweep in map(sweep_of, (values, values + apart), [margin] * 2)
        )
        found, other = ([outcome.finding for outcome in progress.outcomes.values()] for progress in (same, differing))
        counts["false difference"] += any(finding in ("better", "worse") for finding in found)
        counts["false equality"] += "equal" in other
        counts["equality seen"] += found.count("equal") / ROWS
        counts["difference seen"] += sum(finding in ("better", "worse") for finding in other) / ROWS
        counts["seeds"] += sum(differing.seeds.values()) / len(differing.seeds) / 100
    return {name: round(100 * number / sweeps, 1) for name, number in counts.items()}


def measured_correlations() -> dict[str, Any]:
    """Of the distinct comparisons of five seeds under docs/results, in both metrics."""
    found: dict[str, dict[tuple[str, ...], float]] = {"metric": {}, "nll": {}}
    for path in sorted((ROOT / "docs" / "results").glob("*/sweep.json")):
        sweep = read_sweep(path.parent)
        for row, base in all_pairs(sweep):
            for name, metric in (("metric", sweep.metric), ("nll", "test/nll")):
                ours, theirs = sweep.values(row, metric), sweep.values(base, metric)
                seeds = sorted(ours.keys() & theirs.keys())
                if len(seeds) < PILOT:
                    continue
                value = correlation([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
                if value is not None:
                    found[name][sweep.rows[row].key or row, sweep.rows[base].key, sweep.metric] = value
    parts = ("lower quartile", "median", "upper quartile")
    return {
        name: {"comparisons": len(values)}
        | dict(zip(parts, np.quantile(list(values.values()), [0.25, 0.5, 0.75]).round(2).tolist(), strict=True))
        for name, values in found.items()
    }


def run(seed: int, spreads: Sequence[float], sweeps: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Says the tables of docs/statistics.md as Markdown; the rows of all of them."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []

    def table(title: str, cells: Sequence[dict[str, Any]], measure: Callable[..., dict[str, float]]) -> None:
        say(f"\n{title}\n")
        for number, cell in enumerate(cells):
            row = {**cell, **measure(**cell)}
            rows.append({"table": title, **row})
            if not number:
                say(f"| {' | '.join(row)} |")
                say(f"|{'---|' * len(row)}")
            say(f"| {' | '.join(f'{value:g}' if isinstance(value, float) else str(value) for value in row.values())} |")

    cells = [*itertools.product(["normal", "row fails"], SEEDS, spreads, CORRELATIONS)]
    # Where all rows fail, and where power is asked for, their spreads are one.
    cells += itertools.product(["all fail"], SEEDS, [1.0], CORRELATIONS)
    grid = [dict(zip(("tails", "seeds", "spread", "shared"), cell, strict=True)) for cell in cells]
    table("Errors, %", grid, lambda **cell: errors(rng, sweeps, effect=0.0, **cell))
    powers = [
        {"tails": "normal", "spread": 1.0, "seeds": n, "shared": shared} for n in SEEDS for shared in CORRELATIONS
    ]
    table("Power, %", powers, lambda **cell: errors(rng, sweeps, effect=EFFECT, **cell))
    demand = [{"tails": "normal", "spread": spread, "shared": shared} for spread in spreads for shared in CORRELATIONS]
    demand += [{"tails": tails, "spread": 1.0, "shared": 0.0} for tails in ("all fail", "row fails")]
    table("Seeds on demand, %", demand, lambda **cell: on_demand(rng, max(sweeps // 5, 1), **cell))
    table("Correlation over seeds in docs/results", [{}], lambda: measured_correlations()["metric"])
    table("Correlation of nll over seeds in docs/results", [{}], lambda: measured_correlations()["nll"])
    table(
        "Break-even", [{"seeds": n} for n in (3, 5, 10, 20)], lambda seeds: {"correlation": round(break_even(seeds), 2)}
    )
    return rows
