"""A trace of some steps: of these, of no others, and nothing else changes."""

import types
from pathlib import Path

import jax
import pytest
import tiny_run

from transformer_jax.errors import UserError
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.profile import CALL, profiled
from transformer_jax.run.train import train_lanes


def train(workdir: Path, window: tuple[int, int], compiled=None) -> None:
    compiled = compiled or tiny_run.program()
    train_lanes([tiny_run.config()], [workdir], program=compiled, profile=window, say=lambda line: None)


def traced_steps(workdir: Path) -> list[int]:
    """The numbers of the steps of which the trace tells, in its order."""
    (file,) = (workdir / "profile").rglob("*.xplane.pb")
    events = [
        event
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
        if event.name == CALL
    ]
    return [dict(event.stats)["step_num"] for event in sorted(events, key=lambda event: event.start_ns)]


def test_the_steps_of_the_window_are_traced_and_the_run_is_what_it_is_without(tmp_path):
    train(tmp_path / "run", (6, 9))
    assert traced_steps(tmp_path / "run") == [6, 7, 8, 9]
    assert tiny_run.content(tmp_path / "run") == tiny_run.content(tiny_run.finished())


def test_no_call_of_several_steps_reaches_across_an_edge_of_the_window(tmp_path, monkeypatch):
    told = []

    def take(state, step, limit, lanes):
        told.append((step, limit))
        return state, {}, limit

    monkeypatch.setattr(jax.profiler, "start_trace", lambda *given, **options: told.append("begin"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("end"))
    steps, step = types.SimpleNamespace(init=None, take=take, batch=None), 0
    with profiled(steps, (6, 9), 20, tmp_path) as traced:
        while step < 20:
            step += traced.take(0, step, min(8, 20 - step), None)[2]
    assert told == [(0, 5), "begin", (5, 4), "end", (9, 8), (17, 3)]


def test_a_run_that_is_stopped_in_the_window_leaves_a_trace(tmp_path):
    with pytest.raises(Interruption):
        train(tmp_path / "run", (2, 9), tiny_run.stop_at(tiny_run.program(), 3))
    assert traced_steps(tmp_path / "run") == [2, 3]


@pytest.mark.parametrize(
    ("make", "window", "said"),
    [
        (None, (19, 21), "must lie, its first step before its last, within the steps that are to be trained: 1 to 20"),
        (tiny_run.stopped, (13, 15), "within the steps that are to be trained: 14 to 20"),
        (tiny_run.finished, (3, 5), "--profile-steps=3:5: all 20 steps are trained already"),
    ],
)
def test_a_window_outside_of_the_run_is_refused(tmp_path, make, window, said):
    workdir = tmp_path / "run"
    if make is not None:
        tiny_run.copy_of(make(), workdir)
    with pytest.raises(UserError, match=said):
        train(workdir, window)
    assert not (workdir / "profile").exists()
    assert workdir.exists() == (make is not None)
