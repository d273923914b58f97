"""Which runs share a program, and how they become tasks: nothing is trained here."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_run

from transformer_jax.sweeps.grouping import Planned, group_by_program, make_tasks, representatives

DROPOUT, SMOOTHING = "model.dropout_rate", "train.label_smoothing"
ROWS = {"base": {}, "drop": {DROPOUT: 0.3}, "smooth": {SMOOTHING: 0.0}, "wide": {"model.d_ff": 64}}


def planned(directory: Path, seeds: int = 3, rows=ROWS) -> list[Planned]:
    return [
        Planned(row, tiny_run.config({**changes, "seed": seed}), directory / row / f"seed_{seed}", f"{row}{seed}")
        for row, changes in rows.items()
        for seed in range(seeds)
    ]


RESULT = {"status": "finished", "steps": 20, "metrics": {}}


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
    assert all(task.population == (len(task.configs) > 1) for task in tasks) or lanes == 1
    assert not any(task.population for task in tasks) or lanes > 1
    assert len({task.name for task in tasks}) == len(tasks)
    assert groups == [names(task) for task in tasks if task.population]
    assert lanes == 1 or max(len(task.configs) for task in tasks) <= lanes
    if workers == 5:
        assert len(tasks) > 2  # the long program is shared out


def begin(*runs: Planned) -> None:
    for run in runs:
        settle(run, "config.json")


def finish(run: Planned, lanes: int, **more) -> None:
    begin(run)
    (run.workdir / "result.json").write_text(
        json.dumps({**RESULT, "key": run.key, "executed": {"lanes": lanes}, **more})
    )


def test_a_population_goes_on_with_its_lanes(tmp_path):
    runs = planned(tmp_path)
    programs = group_by_program(runs)
    _, groups = make_tasks(programs, [], lanes=4, workers=1)
    assert [len(group) for group in groups] == [3, 3, 3, 3]
    begin(*runs)
    finish(runs[0], lanes=3)  # killed between the results of two lanes
    more = group_by_program(planned(tmp_path, seeds=4))
    tasks, again = make_tasks(more, groups, lanes=2, workers=1)
    assert again[:3] == groups[:3]
    assert sorted(again[3:]) == [["drop/seed_3", "smooth/seed_3"], groups[3]]
    # of the new runs those that find no other to go with go alone
    assert sorted(names(task) for task in tasks if not task.population) == [["base/seed_3"], ["wide/seed_3"]]


def test_a_population_of_which_a_run_has_its_result_from_elsewhere_is_no_longer_one(tmp_path):
    """Nothing that is finished is trained again."""
    runs = planned(tmp_path, rows={"base": {}})
    group = [[run.name for run in runs]]
    begin(*runs)
    for more in ({"lanes": 1}, {"lanes": 3, "reused_from": "../.."}):
        finish(runs[0], **more)
        tasks, groups = make_tasks(group_by_program(runs), group, lanes=3, workers=1)
        assert [(names(task), task.population) for task in tasks] == [(["base/seed_1", "base/seed_2"], False)]
        assert groups == []


def test_a_population_that_never_began_is_made_anew(tmp_path):
    runs = planned(tmp_path, rows={"base": {}})
    tasks, groups = make_tasks(group_by_program(runs), [[run.name for run in runs]], lanes=1, workers=1)
    assert (groups, [task.population for task in tasks]) == ([], [False])


def test_what_has_begun_alone_goes_on_alone(tmp_path):
    runs = planned(tmp_path, rows={"base": {}})
    begin(runs[1])
    tasks, groups = make_tasks(group_by_program(runs), [], lanes=8, workers=1)
    assert [(names(task), task.population) for task in tasks] == [
        (["base/seed_0", "base/seed_2"], True),
        (["base/seed_1"], False),
    ]
    assert groups == [["base/seed_0", "base/seed_2"]]


def test_the_longest_tasks_come_first(tmp_path):
    runs = [
        dataclasses.replace(run, parameters={"base": 1, "wide": 5, "drop": 1, "smooth": 1}[run.row])
        for run in planned(tmp_path)
    ]
    tasks, _ = make_tasks(group_by_program(runs), [], lanes=1, workers=1)
    assert [task.name for task in tasks] == ["001-wide", "000-base"]


def test_a_group_that_is_no_longer_in_the_sweep_is_left_alone(tmp_path):
    programs = group_by_program(planned(tmp_path, seeds=1, rows={"base": {}}))
    tasks, _ = make_tasks(programs, [["gone/seed_0", "base/seed_0"]], lanes=1, workers=1)
    assert [names(task) for task in tasks] == [["base/seed_0"]]


def test_of_equal_experiments_the_furthest_is_the_one_that_is_trained(tmp_path):
    runs = [dataclasses.replace(run, key="same") for run in planned(tmp_path, seeds=1)]
    assert representatives(runs) == [runs[0]]
    begin(runs[1])
    assert representatives(runs) == [runs[1]]
    finish(runs[2], lanes=1)
    assert representatives(runs) == [runs[2]]
