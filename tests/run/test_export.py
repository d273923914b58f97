"""Parameters as safetensors: every one of them, readable with nothing of ours."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from safetensors import safe_open
from safetensors.numpy import load_file

from transformer_jax import cli
from transformer_jax.config import freeze
from transformer_jax.errors import UserError
from transformer_jax.export import export
from transformer_jax.run.identity import read_config
from transformer_jax.run.saved import load_params

pytestmark = pytest.mark.newest


@pytest.mark.parametrize("checkpoint", ["last", "16", None])
def test_all_parameters_are_in_the_file_with_their_config(tmp_path, checkpoint):
    run, output = tiny_run.finished(), tmp_path / "model.safetensors"
    written = export(run, output, checkpoint)
    tensors = load_file(output)
    expected = jax.tree_util.tree_leaves_with_path(load_params(run, checkpoint or "average:3"))
    assert len(tensors) == len(expected) > 10
    for path, leaf in expected:
        np.testing.assert_array_equal(tensors[".".join(part.key for part in path)], leaf)
    assert written["tensors"] == {name: list(tensor.shape) for name, tensor in tensors.items()}
    with safe_open(output, "np") as file:
        metadata = file.metadata()
    assert freeze(json.loads(metadata["config"])) == read_config(run)
    assert metadata["checkpoint"] == (checkpoint or "average:3")
    assert metadata["commit"] == str(json.loads((run / "result.json").read_text())["commit"])


def test_the_command(tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    assert cli.main(["export", f"--workdir={tiny_run.finished()}", f"--output={output}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == str(output)
    assert output.is_file()


def everything(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "output",
    [
        "run/config.json", "run/result.json", "run/nonfinite.json", "run/new.bin", "run/checkpoints/model.safetensors",
        "run/checkpoints/00000020/progress.json", "run/predictions/test.txt", "link/config.json", "link.safetensors",
        "other/config.json", "other/error.json", "run", "text.txt", "empty", "text.safetensors", "pipe",
    ],
)  # fmt: skip
def test_nothing_but_an_export_is_overwritten(tmp_path, output):
    run = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    tiny_run.copy_of(tiny_run.stopped(), tmp_path / "other")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "link.safetensors").symlink_to(run / "metrics.jsonl")
    for name in ("text.txt", "text.safetensors"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    before = everything(tmp_path)
    with pytest.raises(UserError, match=f"--output={tmp_path / output}: "):
        export(run, tmp_path / output)
    assert everything(tmp_path) == before


def test_an_export_replaces_an_export(tmp_path):
    """Beside the files of a run too, where it is none of them."""
    run = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    for output in (tmp_path / "model.bin", run / "model.safetensors"):
        export(run, output, "last")
        before = output.read_bytes()
        export(run, output, "16")
        assert output.read_bytes() != before


def test_a_checkpoint_that_is_not_there_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at step 7"):
        export(tiny_run.finished(), tmp_path / "model.safetensors", "7")
    assert list(tmp_path.iterdir()) == []
