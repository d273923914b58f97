"""Parameters as safetensors: every one of them, readable with nothing of ours."""

import json

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
from transformer_jax.run_directory import read_config
from transformer_jax.saved_run import load_params

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


def test_a_checkpoint_that_is_not_there_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at step 7"):
        export(tiny_run.finished(), tmp_path / "model.safetensors", "7")
    assert list(tmp_path.iterdir()) == []
