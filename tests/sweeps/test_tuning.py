"""The search for a base's numbers: what is tried, what is chosen, and that it is the same when it is asked again."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.errors import UserError
from transformer_jax.report.results import Row, Run, Sweep
from transformer_jax.run.directory import MOST_SEEDS
from transformer_jax.sweeps import runner
from transformer_jax.sweeps.tuning import choose, default_grid, make_candidates, parse_tried, to_markdown, tune
from transformer_jax.sweeps.worker import run_task

RATE, DROPOUT = "optimizer.learning_rate", "model.dropout_rate"
NUMBERS = {"base": {RATE: 2.0}, "half": {RATE: 1.0}, "twice": {RATE: 4.0}}


# --- What is tried ---


def test_every_combination_is_tried_and_the_base_once():
    """The tiny base has learning rate 0.003 and dropout 0.1."""
    found = make_candidates(tiny_run.config(), {RATE: [0.003, 0.006], DROPOUT: [0.0, 0.1]})
    assert [variant.name for variant in found] == [
        "base", "learning_rate_0.003-dropout_rate_0.0", "learning_rate_0.006-dropout_rate_0.0",
        "learning_rate_0.006-dropout_rate_0.1",
    ]  # fmt: skip
    assert [(v.config.optimizer.learning_rate, v.config.model.dropout_rate) for v in found] == [
        (0.003, 0.1), (0.003, 0.0), (0.006, 0.0), (0.006, 0.1),
    ]  # fmt: skip
    both = {DROPOUT: [0.5], "model.attention.dropout_rate": [0.5]}
    assert make_candidates(tiny_run.config(), both)[1].name == f"{DROPOUT}_0.5-model.attention.dropout_rate_0.5"


def test_without_a_word_learning_rate_dropout_and_label_smoothing_are_tried():
    grid = default_grid(tiny_run.config({DROPOUT: 0.3}))
    assert grid == {RATE: [0.0015, 0.003, 0.006], DROPOUT: [0.0, 0.1, 0.3], "train.label_smoothing": [0.0, 0.1]}


def test_what_is_tried_is_read_as_values_of_the_field():
    assert parse_tried([f"{RATE}=1e-3,2e-3", f"{DROPOUT}=0"]) == {RATE: [1e-3, 2e-3], DROPOUT: [0]}
    for argument, sentence in {
        RATE: "give the values to try",
        f"{RATE}=": "give the values to try",
        "optimizer.learning=1": "optimizer.learning_rate'",
    }.items():
        with pytest.raises(UserError, match=sentence):
            parse_tried([argument])
    with pytest.raises(UserError, match="is named twice"):
        parse_tried([f"{RATE}=1", f"{RATE}=2"])


@pytest.mark.parametrize(
    ("tried", "sentence"),
    [
        ("model.d_ff=8,16", "only numbers that are no sizes can be tuned: .*learning_rate"),
        ("optimizer.weight_decay=0.1", "this config does not read it"),
        (f"{DROPOUT}=0.5,1.5", "out of range"),
        (f"{DROPOUT}=much", "must be of type float"),
        (f"{DROPOUT}={','.join(f'0.{n:04d}' for n in range(1001))}", "more than 1,000"),
        ("seed=1", "only numbers that are no sizes"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_made(tmp_path, tried, sentence):
    config = tiny_run.write_config_file(tmp_path / "c.py")
    with pytest.raises(UserError, match=sentence):
        tune(str(config), {}, parse_tried([tried]), tmp_path / "work")
    assert not (tmp_path / "work").exists()


# --- What is chosen ---


def found(values: dict[str, list[float | None]], nll: dict[str, float] | None = None, **fields) -> Sweep:
    """A sweep of those rows; a value of None is a run that diverged."""
    runs = []
    for row, row_values in values.items():
        for seed, value in enumerate(row_values, MOST_SEEDS):
            result = {"metrics": {"valid": {"nll": 0.25}}, "seconds": {"total": 3.0}}
            status = "finished" if value is not None else "diverged"
            curve = {10: (nll or {}).get(row, 1.0), 20: seed / MOST_SEEDS}
            runs.append(Run(row, seed, None, status, "", value, result, {"nll": curve}))
    rows = {row: Row(row, {}, 1, None, {}, "", row) for row in values}
    seeds = tuple(range(MOST_SEEDS, MOST_SEEDS + 2))
    given = {"metric": "valid/exact_match", "higher_is_better": True, "percent": True, **fields}
    return Sweep(
        name="tuning", question="", hypothesis="", scale="", config="", base="base", rows=rows, seeds=seeds,
        curve="valid/nll", commit="", runs=tuple(runs), **given,
    )  # fmt: skip


def choice_of(*arguments, **fields) -> dict[str, float]:
    return choose(found(*arguments, **fields), "c.py", {}, {}, NUMBERS).choice.numbers


def test_the_best_mean_is_chosen_in_the_direction_of_the_metric():
    values = {"base": [0.8, 0.9], "half": [0.95, 0.6], "twice": [0.9, 0.86]}
    assert choice_of(values) == {RATE: 4.0}
    assert choice_of(values, higher_is_better=False) == {RATE: 1.0}


def test_of_equal_means_the_one_that_was_right_earlier_is_chosen_and_then_the_first():
    equal = {"base": [0.5, 0.7], "half": [0.6, 0.6], "twice": [0.5, 0.7]}
    assert choice_of(equal, {"base": 0.3, "half": 0.2, "twice": 0.25}) == {RATE: 1.0}
    assert choice_of({**equal, "half": [0.5, 0.7]}) == {RATE: 2.0}


def test_a_candidate_that_lost_a_seed_is_not_chosen():
    assert choice_of({"base": [0.5, 0.5], "half": [0.9, None], "twice": [0.4, 0.4]}) == {RATE: 2.0}
    with pytest.raises(UserError, match="No candidate finished with every seed"):
        choice_of({"base": [None, None], "half": [0.9, None], "twice": [None, 0.4]})


def test_the_choice_its_curve_and_its_cost_are_told():
    tuned = choose(found({"base": [0.5, 0.7], "half": [0.1, 0.1], "twice": [0.95, 0.97]}), "c.py", {}, {}, NUMBERS)
    assert tuned.arguments == ["--config.optimizer.learning_rate=4.0"]
    assert (tuned.choice.mean, tuned.choice.sd) == (pytest.approx(0.96), pytest.approx(0.02 / 2**0.5))
    assert tuned.curve == {10000: {10: 1.0, 20: 1.0}, 10001: {10: 1.0, 20: 1.0001}}
    assert (tuned.runs, tuned.seconds) == (6, 18.0)
    assert tuned.at_the_edge == [RATE]
    page = to_markdown(tuned)
    assert "Cost: 6 runs, 18 s in all." in page
    assert "| 4 | 96.0 ± 1.4 | 0.2500 | 1.0000 | 95.0 | 97.0 |" in page
    assert page.index("| 4 |") < page.index("| 2 |") < page.index("| 1 |")


# --- The command ---


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A search of two candidates with one seed, trained in this process."""
    directory = tmp_path_factory.mktemp("tune")
    tiny_run.write_config_file(directory / "c.py", {"train.steps": 8, "evaluate.checkpoint": "last"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_tasks", lambda tasks, *_: [run_task(task) for task in tasks])
        yield directory, ask(directory, "work")


def ask(directory: Path, name: str, say=lambda line: None):
    return tune(
        str(directory / "c.py"), {}, {DROPOUT: [0.1, 0.0]}, directory / name, seeds=1, metric="nll", workers=1,
        lanes=1, say=say,
    )  # fmt: skip


def test_a_search_has_seeds_of_its_own_and_is_judged_on_the_validation_split(made):
    directory, tuned = made
    runs = sorted(str(path.relative_to(directory / "work" / "runs")) for path in directory.glob("work/runs/*/*"))
    assert runs == ["base/seed_10000", "dropout_rate_0.0/seed_10000"]
    nll = {
        name: json.loads((directory / "work" / "runs" / name / "result.json").read_text())["metrics"]["valid"]["nll"]
        for name in runs
    }
    assert [c.mean for c in tuned.candidates] == sorted(nll.values())
    assert nll[runs[0]] != nll[runs[1]]


def test_called_again_it_gives_the_same_and_trains_nothing(made, capsys):
    directory, tuned = made
    before = {path.name: path.read_bytes() for path in (directory / "work").glob("tuning.*")}
    assert sorted(before) == ["tuning.json", "tuning.md"]
    arguments = ["tune", f"--config={directory / 'c.py'}", f"--workdir={directory / 'work'}", f"--try={DROPOUT}=0.1,0"]
    assert cli.main([*arguments, "--seeds=1", "--metric=nll", "--json"]) == 0
    output, progress = capsys.readouterr()
    assert "0 to go" in progress
    assert json.loads(output) == json.loads(before["tuning.json"])
    assert json.loads(output)["choice"] == tuned.choice.numbers
    assert {path.name: path.read_bytes() for path in (directory / "work").glob("tuning.*")} == before


def test_stopped_half_way_and_resumed_it_gives_the_same(made):
    directory, tuned = made
    shutil.copytree(directory / "work", directory / "again" / "work")
    shutil.rmtree(directory / "again" / "work" / "runs" / "dropout_rate_0.0")
    said: list[str] = []
    again = ask(directory, "again/work", say=said.append)
    assert said[0] == "2 runs, 1 program; 1 to go."
    assert (again.choice, again.curve) == (tuned.choice, tuned.curve)


def test_the_seed_is_not_for_the_command_line(made):
    directory, _ = made
    with pytest.raises(UserError, match="has seeds of its own"):
        tune(str(directory / "c.py"), {"seed": 3}, {}, directory / "other")
