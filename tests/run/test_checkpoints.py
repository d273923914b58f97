"""Checkpoints: what was damaged is noticed, named and set aside; what is kept, averaged and refused."""

import contextlib
import csv
import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorstore
import tiny_run

from transformer_jax import checkpoint, cli
from transformer_jax.checkpoint import Checkpoints, average, find_damage
from transformer_jax.config import with_values
from transformer_jax.errors import UserError
from transformer_jax.run.compile import state_template
from transformer_jax.run.identity import NUMERICS, read_config
from transformer_jax.run.interruption import Interruption
from transformer_jax.run.saved import evaluate_run, load_params
from transformer_jax.run.train import train, train_lanes

pytestmark = pytest.mark.newest

TEMPLATE = {"a": np.zeros((2, 3), np.float32), "b": {"c": np.zeros((), np.int32)}}


def tree(value: float) -> dict:
    return {"a": np.full((2, 3), value, np.float32), "b": {"c": np.asarray(int(value), np.int32)}}


@pytest.fixture
def saved(tmp_path) -> Checkpoints:
    """Checkpoints at the steps 1, 2 and 3."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", warn=lambda line: None)
    for step in (1, 2, 3):
        checkpoints.save(step, tree(step), {"best_step": step})
    checkpoints.wait()
    return checkpoints


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The directory of one checkpoint; read only."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("one"))
    checkpoints.save(7, tree(7), {"best_step": None})
    checkpoints.wait()
    return checkpoints._path(7)


def test_what_was_saved_comes_back(saved):
    assert saved.steps() == [1, 2, 3]
    state, progress = saved.restore(TEMPLATE, 2)
    np.testing.assert_array_equal(state["a"], tree(2)["a"])
    assert state["a"].dtype == np.float32
    assert state["b"]["c"] == 2
    assert progress["best_step"] == 2


def test_progress_is_what_it_was_when_the_save_began(tmp_path):
    checkpoints, progress = Checkpoints(tmp_path / "checkpoints"), {"window": {"loss": [1.0, 1.0]}}
    checkpoints.save(1, tree(1), progress)
    progress["window"]["loss"][0] = 99.0  # as the loop does while the save is under way
    checkpoints.wait()
    assert checkpoints.restore(TEMPLATE, 1)[1]["window"] == {"loss": [1.0, 1.0]}


def damage_file(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_damage_in_any_file_is_noticed_and_named(tmp_path, one, how):
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for name in files:
        damaged = tmp_path / "damaged"
        shutil.copytree(one, damaged)
        assert find_damage(damaged) is None
        damage_file(damaged / name, how)
        assert str(name) in (find_damage(damaged) or "")
        shutil.rmtree(damaged)


def test_the_newest_undamaged_is_taken_and_the_damaged_set_aside(saved, tmp_path):
    said: list[str] = []
    saved._warn = said.append
    damage_file(tmp_path / "checkpoints/00000003/progress.json", "flipped")
    damage_file(tmp_path / "checkpoints/00000002/manifest.json", "missing")
    assert saved.newest_good() == 1
    assert saved.steps() == [1]
    assert "Checkpoint 3 is damaged (progress.json has changed); it was set aside" in said[0]
    assert "Checkpoint 2 is damaged (manifest.json is missing" in said[1]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000001", "damaged-2", "damaged-3"]


def test_where_all_are_damaged_it_is_refused_every_time(saved, tmp_path):
    for path in (tmp_path / "checkpoints").glob("*/progress.json"):
        damage_file(path, "truncated")
    for _ in range(2):
        with pytest.raises(UserError, match="every checkpoint is damaged"):
            saved.newest_good()


def test_directories_that_are_no_checkpoints_are_ignored(saved, tmp_path):
    for name in ("unfinished-4", "damaged-5", "6", "0000000x", "٠٠٠٠٠٠٠٩"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert saved.steps() == [1, 2, 3]
    assert saved.newest_good() == 3


def test_cut_back_deletes_what_lies_after_the_step(saved, tmp_path):
    (tmp_path / "checkpoints" / "unfinished-4").mkdir()
    saved.cut_back(2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000001", "00000002"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({**TEMPLATE, "a": np.zeros((2, 4), np.float32)}, "a has shape (2, 3), but the model's has (2, 4)"),
        ({"a": TEMPLATE["a"]}, "not of this model"),
        ({**TEMPLATE, "more": TEMPLATE["a"]}, "not of this model"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(saved, template, said):
    with pytest.raises(UserError) as refused:
        saved.restore(template, 1)
    assert said in str(refused.value)


@pytest.mark.parametrize("progress", ["[]", "{}", '{"schema": 99}', "{", '{"schema": null}', "[" * 100_000])
def test_progress_of_another_schema_is_refused(saved, tmp_path, progress):
    (tmp_path / "checkpoints/00000003/progress.json").write_text(progress)
    with pytest.raises(UserError, match=r"schema|damaged"):
        saved.progress(3)


def test_a_step_that_is_not_there_is_refused_with_the_list(saved):
    with pytest.raises(UserError, match=r"no checkpoint at step 9. There are: \[1, 2, 3\]"):
        saved.restore(TEMPLATE, 9)


class Trap:
    """Says so where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


def test_a_pickle_in_a_checkpoint_is_never_loaded(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "checkpoints/00000003"
    for name in ("state.pkl", "state/_METADATA.pickle", "state/checkpoint"):  # the last is a name that Orbax knows
        (directory / name).write_bytes(pickle.dumps(Trap()))
        assert "does not belong to it" in (find_damage(directory) or "")
        forge(directory)
        with contextlib.suppress(UserError):
            np.testing.assert_array_equal(saved.restore(TEMPLATE, 3)[0]["a"], tree(3)["a"])
    assert not (tmp_path / "unpickled").exists()
    pickle.loads(pickle.dumps(Trap()))
    assert (tmp_path / "unpickled").exists()  # the trap works


def forge(directory: Path) -> None:
    """Hashes that say that all is as it was written."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "manifest.json"]
    hashes = {str(f.relative_to(directory)): hashlib.blake2b(f.read_bytes(), digest_size=16).hexdigest() for f in files}
    (directory / "manifest.json").write_text(json.dumps(hashes))


@pytest.mark.parametrize("name", ["progress.json", "manifest.json", "state/_METADATA", "state/manifest.ocdbt", "more"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_is_neither_opened_nor_followed(saved, tmp_path, name, kind):
    directory = tmp_path / "checkpoints/00000003"
    path = directory / name
    if path.exists():
        path.rename(tmp_path / "outside")
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "outside")
    if name != "manifest.json":
        forge(directory)
    says = f"{path}: is {'a link' if kind == 'link' else 'no regular file'}"
    assert find_damage(directory) == says
    with pytest.raises(UserError, match="damaged"):
        saved.restore(TEMPLATE, 3)
    if name == "progress.json":
        with pytest.raises(UserError, match="the checkpoint is damaged"):
            saved.progress(3)
    assert saved.newest_good() == 2


def test_a_link_for_a_checkpoint_is_not_followed(saved, tmp_path):
    (tmp_path / "checkpoints/00000004").symlink_to(tmp_path / "checkpoints/00000003")
    assert find_damage(tmp_path / "checkpoints/00000004") == f"{tmp_path}/checkpoints/00000004: is a link"
    assert saved.newest_good() == 3
    assert saved.steps() == [1, 2, 3]


@pytest.mark.parametrize(
    ("array", "change", "says"),
    [
        ("a", {"shape": [10**11], "chunks": [10**11]}, "a has shape (100000000000,), but the model's has (2, 3)"),
        ("a", {"chunks": [10**11, 3]}, "a is stored in parts that are larger than itself"),
        ("a", {"dtype": "<f8"}, "a is of type float64, but the model's is float32"),
        ("more", {"shape": [10**11], "chunks": [10**11]}, "not of this model"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_there_is_memory_for_them(saved, tmp_path, array, change, says):
    """Orbax itself would end the process: it has no memory for what the file says is in it."""
    directory = tmp_path / "checkpoints/00000003"
    if array == "more":
        saved.save(3, {**tree(3), "more": np.zeros(3)}, {})
        saved.wait()
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{directory / 'state'}/"}).result()
    described = json.loads(store.read(f"{array}/.zarray").result().value)
    store.write(f"{array}/.zarray", json.dumps(described | change).encode()).result()
    forge(directory)
    assert find_damage(directory) is None
    with pytest.raises(UserError) as refused:
        saved.restore(TEMPLATE, 3)
    assert says in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tree_metadata": 3}', "[" * 100_000])
def test_what_orbax_cannot_read_is_a_sentence(saved, tmp_path, content):
    directory = tmp_path / "checkpoints/00000003"
    (directory / "state/_METADATA").write_text(content)
    forge(directory)
    with pytest.raises(UserError, match="the checkpoint is not of this model"):
        saved.restore(TEMPLATE, 3)


# --- Failing disks ---


def test_a_failing_disk_is_a_sentence_and_earlier_checkpoints_are_intact(saved, monkeypatch, tmp_path):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "flush", full)
    saved.save(4, tree(4), {})
    with pytest.raises(
        UserError, match="could not be written .*No space left on device.* Earlier checkpoints are intact"
    ):
        saved.wait()
    assert saved.steps() == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"0000000{n}" for n in (1, 2, 3)]
    assert saved.newest_good() == 3


MOVED = """
import threading, time
from pathlib import Path
import numpy as np
from transformer_jax.checkpoint import Checkpoints, UserError
run = Path("run")
run.mkdir()
def move():
    while not list(run.glob("checkpoints/unfinished-*/state*/*")):
        time.sleep(0.0001)
    run.rename("moved")
    run.write_text("in its place")
threading.Thread(target=move).start()
checkpoints = Checkpoints(run / "checkpoints")
checkpoints.save(1, {f"a{n}": np.ones((100, 1000), np.float32) for n in range(100)}, {})
try:
    checkpoints.wait()
except UserError as error:
    print(error)
"""


def test_a_directory_that_is_moved_while_it_is_saved_to_is_a_sentence_and_nothing_else(tmp_path):
    """Orbax logs what it raises, and its threads go on in a loop that is closed by then: hundreds of lines."""
    environment = {**os.environ, "PYTHONPATH": str(cli.ROOT)}
    found = subprocess.run([sys.executable, "-c", MOVED], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "the checkpoint could not be written" in found.stdout
    assert found.stderr == ""


def test_tasks_of_orbax_that_failed_and_were_dropped_are_not_heard(caplog):
    Checkpoints(Path("nowhere"))
    for coroutine in ("defined at orbax/checkpoint/type_handlers.py", "defined at elsewhere.py"):
        logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task %s>", coroutine)
    assert [record.args for record in caplog.records] == [("defined at elsewhere.py",)]


def test_threads_of_orbax_that_outlive_a_save_are_not_heard(capfd):
    """As Tensorstore reports them; other exceptions that nobody can catch are."""
    Checkpoints(Path("nowhere"))
    said = []
    for error in (RuntimeError("Event loop is closed"), RuntimeError("something else")):
        said.append(type("Unraisable", (), {"exc_type": type(error), "exc_value": error, "exc_traceback": None,
                                            "err_msg": None, "object": None}))  # fmt: skip
    heard = []
    checkpoint._quiet_orbax.cache_clear()
    before, sys.unraisablehook = sys.unraisablehook, heard.append
    try:
        checkpoint._quiet_orbax()
        for unraisable in said:
            sys.unraisablehook(unraisable)
    finally:
        sys.unraisablehook = before
    assert heard == said[1:]


def test_a_run_that_is_moved_is_not_begun_again_in_its_old_place(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(1, tree(1), {})
    with pytest.raises(UserError, match="the checkpoint could not be written"):
        checkpoints.wait()
    assert not (tmp_path / "run").exists()


def test_a_run_on_a_full_disk_stops_and_is_resumed_when_there_is_room(tmp_path, monkeypatch):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "flush", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left on device"):
            tiny_run.train_here(workdir)
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """A file that leaves no room."""
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def test_a_disk_that_is_really_full(small_disk):
    """Training ends with a sentence, the checkpoints before are whole, and with room again not a bit is missing."""
    workdir = tiny_run.copy_of(tiny_run.stopped(), small_disk / "run")
    before = Checkpoints(workdir / "checkpoints").steps()
    filler = fill(small_disk)
    with pytest.raises((UserError, OSError), match="No space left on device"):
        tiny_run.train_here(workdir)
    assert Checkpoints(workdir / "checkpoints").steps() == before
    assert all(find_damage(workdir / "checkpoints" / f"{step:08d}") is None for step in before)
    filler.unlink()
    tiny_run.train_here(workdir)
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())


def test_a_disk_that_may_only_be_read(small_disk, capsys):
    workdir = tiny_run.copy_of(tiny_run.stopped(), small_disk / "run")
    config = tiny_run.write_config_file(small_disk / "configs" / "tiny.py")
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli.main(["train", f"--config={config}", f"--workdir={workdir}"]) == 2
    error = capsys.readouterr().err
    assert "Read-only file system" in error
    assert "Traceback" not in error
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


# --- Schemas ---

SCHEMAS = Path(__file__).parent / "schemas"
"""A finished run, packed, of every schema of checkpoints there ever was; README.md there says how to make the next."""


def test_there_is_a_run_of_every_schema():
    assert {path.name for path in SCHEMAS.glob("*.tar.gz")} == {f"{n}.tar.gz" for n in range(1, checkpoint.SCHEMA + 1)}


@pytest.mark.parametrize("schema", range(1, checkpoint.SCHEMA + 1))
def test_a_run_of_an_older_schema_is_read_and_resumed(schema, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.unpack_archive(SCHEMAS / f"{schema}.tar.gz", workdir, filter="data")
    recorded = json.loads((workdir / "result.json").read_text())["metrics"]["test"]
    found = evaluate_run(workdir, checkpoint="last")
    assert {name: found["metrics"][name] for name in recorded} == pytest.approx(recorded, rel=1e-5)  # others are new
    assert Path(found["predictions"]).read_text() == (workdir / "predictions" / "test.txt").read_text()
    assert cli.main(["report", str(workdir), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    (line,) = csv.DictReader(Path(files["csv"]).read_text().splitlines())
    assert (line["parameters"], line["metric"]) == ("344", "test/exact_match")
    assert float(line["mean"]) == recorded["exact_match"]
    steps = read_config(workdir).train.steps + 4
    more = with_values(read_config(workdir), {"train.steps": steps})

    def resume() -> None:
        train(more, workdir, allow_config_change=["train.steps"], say=lambda line: None)

    data = json.loads((workdir / "data.json").read_text())
    if data["numerics"] != NUMERICS:
        with pytest.raises(UserError, match=rf"computes other numbers \(numerics {data['numerics']}, now {NUMERICS}\)"):
            resume()
        # The numbers of the steps differ since; what was saved is a whole state all the same.
        (workdir / "data.json").write_text(json.dumps({**data, "numerics": NUMERICS}))
    before = load_params(workdir, "last")
    resume()
    assert Checkpoints(workdir / "checkpoints").steps()[-1] == steps
    assert np.any(_leaf(load_params(workdir, "last")) != _leaf(before))


def test_parameters_of_schema_1_are_those_by_other_names():
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape), state_template(tiny_run.config({"model.vocab_size": 10})))
    old = checkpoint.to_schema_1(state)
    assert {"encoder_layers", "decoder_layers"} <= set(old.params) == set(old.average)
    assert not {"encoder", "decoder"} & set(old.params)
    assert jax.tree.structure(checkpoint.from_schema_1(old)) == jax.tree.structure(state)


# --- In a run ---


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bit(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    file = next(path for path in (workdir / "checkpoints/00000013/state/d").iterdir())
    damage_file(file, "flipped")
    said: list[str] = []
    tiny_run.train_here(workdir, say=said.append)
    assert any("Checkpoint 13 is damaged" in line and file.name in line for line in said)
    assert "Resuming at step 10." in said
    assert tiny_run.content(workdir) == tiny_run.content(tiny_run.finished())


def test_a_run_with_nothing_but_damage_is_not_started_anew(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    log = (workdir / "metrics.jsonl").read_bytes()
    for path in (workdir / "checkpoints").glob("*/manifest.json"):
        path.write_text("{}")
    for _ in range(2):
        with pytest.raises(UserError, match="every checkpoint is damaged"):
            tiny_run.train_here(workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == log


def resume(workdir: Path, choice: str, scores: Sequence[float] = (), stop: int | None = None) -> list[str]:
    """Begins or resumes a run that is evaluated by `choice`, up to `stop`, and finds these scores; what was said."""
    change, turn = {"evaluate.checkpoint": choice}, iter(scores)

    def scored(measure, *arguments, **options):
        metrics, texts = measure(*arguments, **options)
        return [{**metrics[0], "nll": next(turn, 9.0)}], texts

    compiled, said = tiny_run.with_measure(tiny_run.adjusted(tiny_run.program(), change), scored), []
    if stop is not None:
        compiled = tiny_run.stop_at(compiled, stop)
    train_lanes(
        [tiny_run.config(change)], [workdir], program=compiled, allow_config_change=change, say=said.append
    )  # fmt: skip
    return said


@pytest.mark.parametrize(
    ("choice", "damaged", "start"),
    [("average:3", 16, 15), ("average:2", 16, 15), ("average:2", 15, 20), ("last", 16, 20), ("best", 15, 20)],
)
def test_a_damaged_checkpoint_that_the_end_needs_is_trained_again(tmp_path, choice, damaged, start):
    """And one that is not needed is let alone: the newest is good."""
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    (workdir / "result.json").unlink()
    damage_file(workdir / f"checkpoints/000000{damaged}/progress.json", "flipped")
    said = resume(workdir, choice)
    assert f"Resuming at step {start}." in said
    needed = [line for line in said if f"checkpoint {damaged} is damaged (progress.json has changed)" in line]
    assert len(needed) == (start < 20)
    assert all(f"evaluate.checkpoint = '{choice}' needs it: it is trained again" in line for line in needed)
    if start < 20:
        assert tiny_run.content(workdir)["states"] == tiny_run.content(tiny_run.finished())["states"]
    assert json.loads((workdir / "result.json").read_text())["status"] == "finished"


def test_where_it_cannot_be_trained_again_it_is_refused_and_the_last_state_is_not_lost(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    (workdir / "result.json").unlink()
    damage_file(workdir / "checkpoints/00000015/progress.json", "flipped")
    files = set(workdir.rglob("*"))
    for _ in range(2):
        with pytest.raises(UserError) as refused:
            tiny_run.train_here(workdir)
        assert "checkpoint 15 is damaged (progress.json has changed)" in str(refused.value)
        assert "--config.evaluate.checkpoint=last --allow-config-change=evaluate.checkpoint" in str(refused.value)
    assert set(workdir.rglob("*")) == files
    assert "Resuming at step 20." in resume(workdir, "last")
    assert json.loads((workdir / "result.json").read_text())["metrics"]["test"]["nll"] > 0


def test_a_damaged_best_checkpoint_is_needed_unless_a_later_one_is_better(tmp_path):
    with pytest.raises(Interruption):
        resume(tmp_path / "run", "best", [2.0, 3.0], stop=17)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [8, 10, 15, 16, 17]
    damage_file(tmp_path / "run" / "checkpoints/00000008/progress.json", "flipped")
    said = resume(tmp_path / "run", "best", [1.0])
    assert "Resuming at step 17." in said
    assert any("checkpoint 8 is damaged" in line and "unless a later one is better" in line for line in said)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["best_step"], result["status"]) == (20, "finished")


def test_a_damaged_best_checkpoint_is_trained_again(tmp_path):
    with pytest.raises(Interruption):
        resume(tmp_path / "run", "best", [3.0, 2.0], stop=17)
    damage_file(tmp_path / "run" / "checkpoints/00000016/progress.json", "flipped")
    said = resume(tmp_path / "run", "best", [2.0, 3.0])
    assert "Resuming at step 15." in said
    assert len([line for line in said if "is damaged" in line]) == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best_step"] == 16


def test_the_last_and_the_best_are_kept(tmp_path):
    assert Checkpoints(tiny_run.finished() / "checkpoints").steps() == [15, 16, 20]
    scores = iter([3.0, 1.0, 2.0])  # the best is that of step 16 ...

    def scored(measure, *arguments, **options):
        metrics, texts = measure(*arguments, **options)
        return [{**metrics[0], "nll": next(scores, 9.0)}], texts

    program = tiny_run.with_measure(tiny_run.program(), scored)
    tiny_run.train_here(tmp_path / "run", compiled=program)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [15, 16, 20]
    scores = iter([1.0, 3.0, 2.0])  # ... and of step 8, which is not among the last three
    tiny_run.train_here(tmp_path / "early", compiled=program)
    assert Checkpoints(tmp_path / "early" / "checkpoints").steps() == [8, 15, 16, 20]
    best = load_params(tmp_path / "early", "best")
    np.testing.assert_array_equal(_leaf(best), _leaf(load_params(tmp_path / "early", "8")))
    assert np.any(_leaf(best) != _leaf(load_params(tmp_path / "early", "last")))


def _leaf(params) -> np.ndarray:
    return jax.tree.leaves(params)[0]


def test_average_is_the_mean_of_the_last_checkpoints():
    run = tiny_run.finished()
    template = state_template(read_config(run))
    checkpoints = Checkpoints(run / "checkpoints")
    states = [checkpoints.restore(template, step)[0] for step in (15, 16, 20)]
    expected = jax.tree.map(
        lambda *leaves: np.mean(np.stack(leaves), axis=0, dtype=np.float64), *[s.average for s in states]
    )
    found = load_params(run, "average:3")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    assert np.any(_leaf(found) != _leaf(load_params(run, "last")))


@pytest.mark.parametrize("moment", ["find_damage", "_read_state"])
@pytest.mark.parametrize(
    ("choice", "again"), [("last", "16"), ("best", "16"), ("average:2", "average:2"), ("20", None)]
)
def test_what_training_deletes_while_it_is_read_is_chosen_again(tmp_path, monkeypatch, choice, again, moment):
    workdir = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.progress(20)["best_step"] == 20
    real, gone = getattr(checkpoint, moment), [20]

    def look(*arguments):
        found = real(*arguments)
        if gone:
            checkpoints._delete(gone.pop())  # as where there are no locks
        return found

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, look)
        if again is None:
            with pytest.raises(UserError, match=r"no checkpoint at step 20. There are: \[15, 16\]"):
                load_params(workdir, choice)
            return
        found = load_params(workdir, choice)
    assert gone == []
    jax.tree.map(np.testing.assert_array_equal, found, load_params(workdir, again))
    assert np.any(_leaf(found) != _leaf(load_params(tiny_run.finished(), choice)))


def test_what_is_being_read_is_deleted_later(saved, tmp_path, monkeypatch):
    deleted, read = Checkpoints(tmp_path / "checkpoints"), checkpoint._read_state

    def look(*arguments):
        deleted.delete([1, 2])
        assert saved.steps() == [2, 3]
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_read_state", look)
        np.testing.assert_array_equal(saved.restore(TEMPLATE, 2)[0]["a"], tree(2)["a"])
    deleted.delete([2])
    assert saved.steps() == [3]


def test_a_checkpoint_is_never_half_deleted(saved, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # as if it were killed before
        saved.delete([1, 2])
        assert saved.steps() == [3]
    saved.cut_back(3)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000003"]


def test_average_of_equal_trees_is_the_tree():
    np.testing.assert_array_equal(average([tree(3), tree(3), tree(3)])["a"], tree(3)["a"])


def test_a_stop_does_not_count_among_the_averaged():
    stopped, finished = tiny_run.stopped(), tiny_run.finished()
    assert 13 in Checkpoints(stopped / "checkpoints").steps()
    with pytest.raises(UserError, match="fewer than 'average:4'"):
        load_params(finished, "average:4")
    template = state_template(read_config(stopped))
    restore = Checkpoints(stopped / "checkpoints").restore
    expected = average([restore(template, step)[0].average for step in (5, 8, 10)])
    np.testing.assert_array_equal(_leaf(load_params(stopped, "average:3")), _leaf(expected))
