"""Section 5.3 and the other schedules, at steps counted from 1."""

import math

import numpy as np
import pytest

from transformer_jax.config import freeze
from transformer_jax.errors import UserError
from transformer_jax.training.optimizer import build_schedule, check
from transformer_jax.training.schedule import SCHEDULES

STEPS, WARMUP, PEAK, D = 50, 8, 0.3, 64


def fall(step):
    """From 0 at the end of the warm-up to 1 at the last step."""
    return max(0.0, (step - WARMUP) / (STEPS - WARMUP))


TWINS = {
    "noam": lambda s: D**-0.5 * min(s**-0.5, s * WARMUP**-1.5),
    "inverse_sqrt": lambda s: s / WARMUP if s < WARMUP else math.sqrt(WARMUP / s),
    "cosine": lambda s: min(1, s / WARMUP) * (1 + math.cos(math.pi * fall(s))) / 2,
    "linear": lambda s: min(1, s / WARMUP) * (1 - fall(s)),
    "constant": lambda s: 1.0,
}


def rates(schedule, warmup=WARMUP):
    config = freeze(
        {
            "model.d_model": D,
            "optimizer.schedule": schedule,
            "optimizer.warmup_steps": warmup,
            "optimizer.learning_rate": PEAK,
            "train.steps": STEPS,
        }
    )
    return np.asarray(build_schedule(config)(np.arange(1, STEPS + 1)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_twin(name):
    expected = [PEAK * TWINS[name](step) for step in range(1, STEPS + 1)]
    np.testing.assert_allclose(rates(name), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_last_step_has_the_final_rate(name):
    assert rates(name)[-1] == pytest.approx(0, abs=1e-8)
    assert rates(f"{name}(final=0.25)")[-1] == pytest.approx(PEAK / 4)
    assert rates(f"{name}(final=0.25)")[WARMUP - 1] == pytest.approx(PEAK)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warm_up_the_first_step_is_the_highest(name):
    found = rates(name, warmup=0)
    assert np.all(np.isfinite(found))
    assert np.argmax(found) == 0


def test_the_papers_rate_peaks_at_4000_steps():
    schedule = build_schedule(freeze({}))
    assert float(schedule(4000)) == pytest.approx(512**-0.5 * 4000**-0.5)
    assert float(schedule(3999)) < float(schedule(4000)) > float(schedule(4001))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"optimizer.schedule": "noma"}, ["optimizer.schedule", "'noam'"]),
        ({"optimizer.schedule": "noam(final=1.0)"}, ["optimizer.schedule", "'final'"]),
        (
            {"optimizer.schedule": "cosine", "train.steps": 4000},
            ["optimizer.warmup_steps = 4000", "train.steps = 4000"],
        ),
        ({"optimizer.schedule": "linear(final=0.1)", "train.steps": 10}, ["4000", "10", "linear"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, words):
    with pytest.raises(UserError) as refused:
        check(freeze(overrides))
    assert [word for word in words if word not in str(refused.value)] == []
