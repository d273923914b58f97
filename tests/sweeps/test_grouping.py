"""Which runs share a program, and how they become tasks: nothing is trained here."""

from pathlib import Path

import pytest
import tiny_run

from transformer_jax.sweeps.grouping import Planned, group_by_program, make_tasks

DROPOUT, SMOOTHING = "model.dropout_rate", "train.label_smoothing"
ROWS = {"base": {}, "drop": {DROPOUT: 0.3}, "smooth": {SMOOTHING: 0.0}, "wide": {"model.d_ff": 64}}


def planned(directory: Path, seeds: int = 3, rows=ROWS) -> list[Planned]:
    return [
        Planned(row, tiny_run.config({**changes, "seed": seed}), directory / row / f"seed_{seed}", f"{row}{seed}")
        for row, changes in rows.items()
        for seed in range(seeds)
    ]


def settle(run: Planned, name: str = "result.json") -> None:
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / name).write_text("{}")


def names(task) -> list[str]:
    return [f"{workdir.parent.name}/{workdir.name}" for workdir in task.workdirs]


def test_rows_that_differ_in_traced_numbers_share_a_program(tmp_path):
    programs = group_by_program(planned(tmp_path))
    assert [[run.name for run in program] for program in programs] == [
        [f"{row}/seed_{seed}" for row in ("base", "drop", "smooth") for seed in range(3)],
        [f"wide/seed_{seed}" for seed in range(3)],
    ]
    tasks, _ = make_tasks(programs, [], lanes=1, workers=1)
    assert {tuple(task.traced) for task in tasks} == {(DROPOUT, SMOOTHING), ()}


def test_what_is_traced_does_not_depend_on_what_is_left_to_do(tmp_path):
    """A run goes on with the program it was begun with."""
    runs = planned(tmp_path)
    for run in runs:
        if run.row != "base":
            settle(run)
    (task,) = make_tasks(group_by_program(runs), [], lanes=1, workers=1)[0]
    assert task.traced == (DROPOUT, SMOOTHING)


@pytest.mark.parametrize(("lanes", "workers"), [(1, 1), (1, 2), (1, 5), (4, 2), (16, 3), (2, 1)])
def test_every_open_run_is_in_one_task(tmp_path, lanes, workers):
    runs = planned(tmp_path)
    settle(runs[1])
    settle(runs[4], "error.json")
    tasks, groups = make_tasks(group_by_program(runs), [], lanes, workers)
    assert sorted(name for task in tasks for name in names(task)) == sorted(run.name for run in runs if run.is_open)
    assert all(task.population == (lanes > 1) for task in tasks)
    assert len({task.name for task in tasks}) == len(tasks)
    assert groups == ([names(task) for task in tasks] if lanes > 1 else [])
    assert lanes == 1 or max(len(task.configs) for task in tasks) <= lanes
    if workers == 5:
        assert len(tasks) > 2  # the long program is shared out


def test_a_population_goes_on_with_its_lanes(tmp_path):
    runs = planned(tmp_path)
    _, groups = make_tasks(group_by_program(runs), [], lanes=4, workers=1)
    settle(runs[0])  # killed between the results of two lanes
    more = group_by_program(planned(tmp_path, seeds=4))
    tasks, again = make_tasks(more, groups, lanes=2, workers=1)
    assert [names(task) for task in tasks[:3]] == groups[:3]
    assert sorted(name for task in tasks[3:] for name in names(task)) == sorted(
        [*groups[3], "base/seed_3", "drop/seed_3", "smooth/seed_3", "wide/seed_3"]
    )
    assert again[: len(groups)] == groups


def test_what_has_begun_alone_goes_on_alone(tmp_path):
    runs = planned(tmp_path, rows={"base": {}})
    settle(runs[1], "config.json")
    tasks, groups = make_tasks(group_by_program(runs), [], lanes=8, workers=1)
    assert [(names(task), task.population) for task in tasks] == [
        (["base/seed_0", "base/seed_2"], True),
        (["base/seed_1"], False),
    ]
    assert groups == [["base/seed_0", "base/seed_2"]]


def test_a_group_that_is_no_longer_in_the_sweep_is_left_alone(tmp_path):
    programs = group_by_program(planned(tmp_path, seeds=1, rows={"base": {}}))
    tasks, _ = make_tasks(programs, [["gone/seed_0", "base/seed_0"]], lanes=1, workers=1)
    assert [names(task) for task in tasks] == [["base/seed_0"]]
