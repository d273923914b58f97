"""Whether a training had reached its end: the gain of its last fifth, and what the report says of it."""

import json

import pytest
from sweep_files import make_sweep

from transformer_jax.report.convergence import BOUND, convergence_of, late_gain
from transformer_jax.report.read import read_sweep
from transformer_jax.report.write import write_report


@pytest.mark.parametrize(
    ("points", "gain"),
    [
        ({200: 3.0, 400: 2.0, 600: 1.5, 800: 1.2, 1000: 1.1}, 0.1),
        ({500: 3.0, 1000: 1.0}, 0.8),  # 3.0 - 2.0 * 300 / 500 = 1.8 at step 800
        ({700: 1.4, 900: 1.0, 1000: 0.9}, 0.3),  # 1.2 at step 800
        ({800: 0.5, 1000: 0.7}, -0.2),  # it rose
        ({801: 0.5, 1000: 0.4}, None),  # nothing was measured before four fifths
        ({1000: 0.4}, None),
        ({}, None),
    ],
)
def test_the_gain_of_the_last_fifth(points, gain):
    assert late_gain(points) == (None if gain is None else pytest.approx(gain))
    assert late_gain(dict(reversed(points.items()))) == late_gain(points)


def write_curves(directory, row: str, curves: list[dict[int, float]]) -> None:
    for seed, points in enumerate(curves):
        lines = [{"step": step, "split": "valid", "nll": nll} for step, nll in points.items()]
        (directory / f"runs/{row}/seed_{seed}/metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_a_row_converges_by_the_mean_over_its_seeds_and_others_are_warned_of(tmp_path):
    make_sweep(tmp_path, {"base": [0.9, 0.9], "late": [0.8, 0.8], "none": [None, None]})
    write_curves(tmp_path, "base", [{8: 0.510, 10: 0.5}, {8: 0.309, 10: 0.3}])
    write_curves(tmp_path, "late", [{8: 0.500, 10: 0.5}, {8: 0.422, 10: 0.4}])
    sweep = read_sweep(tmp_path)
    base, late = convergence_of(sweep, "base"), convergence_of(sweep, "late")
    assert (base.nll, base.gain, base.reached) == (pytest.approx(0.4), pytest.approx(0.0095), True)
    assert (late.nll, late.gain, late.reached) == (pytest.approx(0.45), pytest.approx(0.011), False)
    assert convergence_of(sweep, "none") is None
    page = write_report(tmp_path).files["md"].read_text()
    assert "base: converged (\N{MINUS SIGN}0.010 nats in the last fifth of training)" in page
    assert f"more than {BOUND:g} nats in the last fifth of training: late (\N{MINUS SIGN}0.011). A difference" in page


def test_a_base_that_has_not_converged_is_warned_of(tmp_path):
    make_sweep(tmp_path, {"base": [0.9, 0.9], "row": [0.8, 0.8]})
    write_curves(tmp_path, "base", [{8: 0.8, 10: 0.5}, {8: 0.3, 10: 0.3}])
    page = write_report(tmp_path).files["html"].read_text()
    assert "not converged (\N{MINUS SIGN}0.150 nats in the last fifth of training)" in page
    assert "base (\N{MINUS SIGN}0.150). A difference to such a row may be one of speed" in page
