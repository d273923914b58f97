"""The simulation behind the choice of a test: its tests are those of SciPy and the program; they keep their level."""

from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from transformer_jax import cli
from transformer_jax.loading import load_module
from transformer_jax.report import statistics

simulation = load_module(Path(__file__).parents[2] / "benchmarks" / "statistics.py", "run")


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return simulation.draw(np.random.default_rng(0), 3, 5, 10.0, 0.7, "normal")


def test_what_is_drawn_has_the_spreads_and_the_correlation_that_are_asked_for():
    drawn = simulation.draw(np.random.default_rng(1), 4000, 10, 10.0, 0.7, "normal")
    assert drawn.std((0, 2)) == pytest.approx([1, 10, 1, 1, 1], rel=0.05)
    assert np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1] == pytest.approx(0.7, abs=0.02)
    for tails in simulation.TAILS:
        drawn = simulation.draw(np.random.default_rng(2), 4000, 10, 1.0, 0.0, tails)
        assert np.abs(drawn.mean((0, 2))).max() < 0.1
    fails = (drawn < -5).mean((0, 2))
    assert fails == pytest.approx([0, 0.2, 0, 0, 0], abs=0.02)


def test_the_tests_that_are_tried_are_those_of_scipy_and_of_the_program(values):
    tried = {test.__name__: test(values) for test in (simulation.paired, simulation.welch, simulation.pooled)}
    for sweep, rows in enumerate(values):
        base = rows[0]
        for k, row in enumerate(rows[1:]):
            for name in ("paired", "welch"):
                assert tried[name][sweep, k] == pytest.approx(statistics.TESTS[name](row, base, 0.05).p)
            assert tried["paired"][sweep, k] == pytest.approx(stats.ttest_rel(row, base).pvalue)
        pooled = np.sqrt(rows.var(1, ddof=1).mean() * 2 / 5)
        t = (rows[1:].mean(1) - base.mean()) / pooled
        assert tried["pooled"][sweep] == pytest.approx(2 * stats.t.sf(abs(t), 20))


def test_moderated_variances_that_are_alike_are_pooled():
    """By the mean of their logarithms, which lies below that of the variances: see Smyth 2004, Section 6.2."""
    rng = np.random.default_rng(3)
    base, luck = rng.normal(size=(2, 1, 6))
    values = np.stack([base, *(base + sign * luck + 0.1 * k for k, sign in enumerate((1, -1, 1, -1)))], axis=1)
    differences = values[:, 1:] - values[:, :1]
    variance = differences.var(-1, ddof=1).mean() * np.exp(np.log(2.5) - special.digamma(2.5))
    t = differences.mean(-1) / np.sqrt(variance / 6)
    assert simulation.moderated(values) == pytest.approx(2 * stats.t.sf(abs(t), 20), rel=1e-3)


def test_break_even_is_where_both_intervals_are_as_wide():
    for seeds in (3, 5, 10):
        paired = stats.t.isf(0.025, seeds - 1) * np.sqrt(2 * (1 - simulation.break_even(seeds)))
        assert paired == pytest.approx(stats.t.isf(0.025, 2 * seeds - 2) * np.sqrt(2))


@pytest.mark.parametrize(("seeds", "spread", "shared"), [(3, 1, 0.7), (5, 10, 0.0), (10, 100, 0.7)])
def test_the_paired_test_keeps_its_level(seeds, spread, shared):
    """Among 20,000 sweeps the standard error of 5 % is 0.15."""
    found = simulation.errors(np.random.default_rng(4), 20_000, spread, seeds, shared, "normal", 0.0)
    assert 4.4 <= found["paired"] <= 5.6
    assert found["welch"] <= 6.0


@pytest.mark.long
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [1, 3, 10, 30, 100])
@pytest.mark.parametrize("shared", [0.0, 0.3, 0.7, 0.95])
def test_the_paired_test_keeps_its_level_wherever_it_is_asked_to(seeds, spread, shared):
    found = simulation.errors(np.random.default_rng(5), 50_000, spread, seeds, shared, "normal", 0.0)
    assert 4.6 <= found["paired"] <= 5.4
    alike = simulation.errors(np.random.default_rng(6), 50_000, 1, seeds, shared, "all fail", 0.0)
    assert alike["paired"] <= 5.4


def test_the_command_says_its_tables(capsys):
    assert cli.main(["benchmark", "statistics", "--sweeps=5", "--spreads=2"]) == 0
    out = capsys.readouterr().out
    assert "| normal | 3 | 2 | 0 |" in out
    assert out.count("|---|") >= 6
