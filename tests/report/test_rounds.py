"""Seeds on demand: what is decided after each round, that it stands, and how often it is wrong."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sweep_files import make_row, make_sweep

from transformer_jax.errors import UserError
from transformer_jax.report.comparison import all_pairs
from transformer_jax.report.read import read_sweep
from transformer_jax.report.results import Row, Run, Sweep
from transformer_jax.report.rounds import doubled, settle
from transformer_jax.report.write import pack_report, write_report
from transformer_jax.sweeps.experiment import Scale

MARGIN = 1.0


def sweep_of(values: dict[str, list[float | None]], rounds=(3, 6, 12), partners=(), **fields) -> Sweep:
    """A sweep in memory; None is a run that is not there."""
    runs = tuple(
        Run(row, seed, None, "missing" if value is None else "finished", "", value, {}, {})
        for row, of_row in values.items()
        for seed, value in enumerate(of_row)
    )
    rows = {name: Row(name, {}, None, dict(partners).get(name), {}, "", name) for name in values}
    return Sweep(
        name="s", question="", hypothesis="", scale="", config="", base="base", rows=rows,
        seeds=tuple(range(max(map(len, values.values())))), metric="test/x", higher_is_better=True, percent=False,
        curve="", commit="", runs=runs, margin=MARGIN, rounds=rounds, **fields,
    )  # fmt: skip


def settled(sweep: Sweep):
    return settle(sweep, all_pairs(sweep))


def test_rounds_double_up_to_the_most():
    assert doubled(5, 20) == (5, 10, 20)
    assert doubled(3, 20) == (3, 6, 12, 20)
    assert doubled(4, 4) == (4,)
    assert Scale("configs/x.py", seeds=3).until_settled(9).rounds == (3, 6, 9)
    for seeds, most in [(1, 20), (5, 4)]:
        with pytest.raises(UserError, match=f"begins with {seeds} seeds and ends with --max-seeds={most}"):
            Scale("configs/x.py", seeds=seeds).until_settled(most)


LUCK = np.random.default_rng(0).normal(size=(4, 12))
BASE = 50 + LUCK[0]
VALUES = {
    "base": list(BASE),
    "far_worse": list(BASE[:3] - 20 + 0.3 * LUCK[1][:3]),
    "equal": list(BASE[:6] + 0.35 * LUCK[2][:6]),
    "noisy": list(BASE + 5 * LUCK[3]),
}


def test_what_is_settled_drops_out_and_stays_as_it_was():
    """Rounds of 3, 6 and 12: each p counts three times, over the comparisons by Holm."""
    progress = settled(sweep_of(VALUES))
    assert {pair[0]: (o.finding, o.round, len(o.seeds)) for pair, o in progress.outcomes.items()} == {
        "far_worse": ("worse", 1, 3), "equal": ("equal", 2, 6), "noisy": ("open", None, 12),
    }  # fmt: skip
    assert progress.seeds == {"base": 12, "far_worse": 3, "equal": 6, "noisy": 12}
    assert (progress.round, progress.is_over, progress.open) == (3, True, 1)
    first = progress.outcomes["far_worse", "base"]
    p = stats.ttest_rel(VALUES["far_worse"], BASE[:3]).pvalue
    assert first.p == pytest.approx(3 * 3 * p)
    level = stats.t.isf(0.05 / 3 / 2, 2) * first.test.sd / np.sqrt(3)
    assert first.test.interval.half_width == pytest.approx(level)


@pytest.mark.parametrize("there", [2, 3, 4, 6, 9, 12])
def test_what_was_decided_does_not_depend_on_where_the_sweep_was_interrupted(there):
    """With so many seeds of each row there, the outcomes of whole rounds are those of the whole sweep."""
    whole = settled(sweep_of(VALUES))
    part = settled(sweep_of({row: values[:there] for row, values in VALUES.items()}))
    assert part.is_over == (there == 12)
    assert part.round == 1 + (there >= 3) + (there >= 6)
    for pair, outcome in part.outcomes.items():
        after = whole.outcomes[pair]
        if after.round is not None and after.round < part.round:
            assert outcome == after
        else:
            assert (outcome.finding, outcome.round) == ("open", None)
    expected = {row: min(count, (3, 6, 12)[part.round - 1]) for row, count in whole.seeds.items()}
    assert dict(part.seeds) == expected


def test_a_row_stays_as_long_as_something_about_it_is_open():
    values = {**VALUES, "far_worse": list(BASE - 20 + 5 * LUCK[3]), "noisy": list(BASE - 20 + 0.1 * LUCK[1])}
    progress = settled(sweep_of(values, partners={"far_worse": "noisy"}))
    assert progress.outcomes["noisy", "base"].round == 1
    assert progress.outcomes["far_worse", "noisy"].finding == "open"
    assert progress.seeds == {"base": 6, "far_worse": 12, "equal": 6, "noisy": 12}


def test_a_row_that_only_fails_gets_no_more_seeds():
    sweep = sweep_of({"base": list(BASE), "broken": [None] * 3})
    failed = [dataclasses.replace(run, status="failed") if run.row == "broken" else run for run in sweep.runs]
    progress = settled(dataclasses.replace(sweep, runs=tuple(failed)))
    assert progress.outcomes["broken", "base"].finding == "unmeasured"
    assert (progress.is_over, progress.seeds) == (True, {"base": 3, "broken": 3})


def test_the_report_of_rounds_says_so_packed_or_not(tmp_path):
    values = {row: of_row[:12] for row, of_row in VALUES.items()}
    rows = {row: make_row(seeds=len(of_row)) for row, of_row in values.items()}
    directory = make_sweep(tmp_path / "s", values, rows=rows, rounds=[3, 6, 12], margin=MARGIN, percent=False, schema=2)
    report = write_report(directory)
    assert {run.status for run in report.analysis.sweep.runs} == {"finished"}
    text = report.files["md"].read_text()
    assert "; rounds of seeds: 3, 6, 12; " in text
    assert "The sweep was looked at after 3, 6, 12 seeds" in text
    assert "every interval of the sweep's metric is one of 98.33 %" in text
    assert "| Settled after round |" in text
    assert "is not over" not in text
    pack_report(directory, tmp_path / "packed")
    again, whole = read_sweep(tmp_path / "packed"), read_sweep(directory)
    assert settle(again, all_pairs(again)) == settle(whole, all_pairs(whole))
    (directory / "runs" / "noisy" / "seed_9" / "result.json").unlink()
    report = write_report(directory)
    assert report.analysis.comparison("noisy").finding == "open"
    assert report.analysis.notes[0] == "Round 3 of 3 is not over: nothing is settled before it is."


def wrong(seed: int, sweeps: int, spread: float, correlation: float) -> tuple[float, float]:
    """How many sweeps of three rows say somewhere that equal rows differ, or that rows a margin apart are equal.

    The margin is three standard errors wide at the end, so that equality can be claimed at all.
    """
    rng = np.random.default_rng(seed)
    spreads = np.array([1.0, spread, 1.0, 1.0])[:, None]
    errors = np.zeros(2)
    for _ in range(sweeps):
        shared, own = rng.normal(size=(1, 20)), rng.normal(size=(4, 20))
        luck = spreads * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)
        for kind, (shift, claims) in enumerate([(0.0, {"better", "worse"}), (MARGIN, {"equal"})]):
            values = dict(zip(("base", "a", "b", "c"), luck + np.array([[0], [shift], [-shift], [shift]]), strict=True))
            progress = settled(sweep_of({row: list(map(float, v)) for row, v in values.items()}, rounds=(5, 10, 20)))
            errors[kind] += any(outcome.finding in claims for outcome in progress.outcomes.values())
    return tuple(errors / sweeps)


@pytest.mark.parametrize(("spread", "correlation"), [(1.0, 0.0), (10.0, 0.7)])
def test_seeds_on_demand_keep_the_error_of_the_family(spread, correlation):
    """Of 300 sweeps 5 % are 15, and 26 or more are seen once in 200 times; one look without correction gives 40."""
    assert max(wrong(0, 300, spread, correlation)) <= 25 / 300


@pytest.mark.long
@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("spread", [1.0, 10.0, 100.0])
def test_seeds_on_demand_keep_the_error_of_the_family_in_many_sweeps(spread, correlation):
    assert max(wrong(1, 4000, spread, correlation)) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 4000)
