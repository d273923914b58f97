"""A run that starts from the parameters of another."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_run

from transformer_jax.config import replace
from transformer_jax.errors import UserError
from transformer_jax.loading import load_config
from transformer_jax.run.compile import state_template
from transformer_jax.run.identity import read_config
from transformer_jax.run.resolve import load_assets, resolve_config, start_directory
from transformer_jax.run.saved import load_params
from transformer_jax.run.start import begin, take_parameters, what_is_taken

CHOICE = "average:3"
"""What the finished run is evaluated by."""


def test_all_lanes_have_the_parameters_that_the_other_is_evaluated_by():
    program = tiny_run.program(2, train__start_from=str(tiny_run.finished()))
    said: list[str] = []
    lanes = program.lanes([replace(program.config, {"seed": seed}) for seed in (0, 1)])
    state, random = (
        program.layout.get(made) for made in (begin(program, lanes, said.append), program.steps.init(lanes))
    )
    expected = load_params(tiny_run.finished(), CHOICE)
    for lane in (0, 1):
        for params in (state.params, state.average):
            of_lane = jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), params)
            jax.tree.map(np.testing.assert_array_equal, of_lane, expected)
    assert state.step.tolist() == [0, 0]
    tables = [made.params["source_embedding"]["embedding"] for made in (state, random)]
    assert not np.array_equal(*tables)
    count = len(jax.tree.leaves(expected))
    assert said == [f"Starts from {tiny_run.finished()}: {count} of {count} arrays of parameters."]


def taken(**overrides: Any) -> tuple[Any, Any, Any]:
    """The parameters of a run that starts from the finished one, those that it would have, and the finished one's."""
    config = tiny_run.config({name.replace("__", "."): value for name, value in overrides.items()})
    resolved = resolve_config(config, load_assets(tiny_run.finished(), config))
    rng = np.random.default_rng(0)
    random = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), state_template(resolved).params)
    there = load_params(tiny_run.finished(), CHOICE)
    return take_parameters(random, there, tiny_run.finished()), random, there


def test_heads_may_be_cut_otherwise():
    here, _, there = taken(model__num_heads=4)
    assert here["encoder"]["layers"]["self_attention"]["query"]["kernel"].shape == (1, 16, 4, 4)
    for part in ("query", "key", "value", "out"):
        after, before = (tree["decoder"]["layers"]["cross_attention"][part]["kernel"] for tree in (here, there))
        assert after.shape != before.shape
        np.testing.assert_array_equal(after.reshape(1, 16, 16), before.reshape(1, 16, 16))


def test_what_the_other_has_not_is_random_and_what_this_one_has_not_is_left_out():
    here, random, there = taken(model__attention__score="bilinear", model__attention__output_projection="none")
    said = what_is_taken(tiny_run.finished(), there, here)
    new = said.partition("random: ")[2].partition("; ")[0].split(", ")
    assert len(new) == 3
    assert all("attention" in name and "score" in name for name in new)
    assert "left out: decoder.layers.cross_attention.out.kernel, decoder" in said
    for after, before in zip(jax.tree.leaves(here), jax.tree.leaves(random), strict=True):
        same = np.array_equal(after, before)
        assert same == (after.shape == (1, 2, 8, 8))


def test_other_sizes_are_refused():
    with pytest.raises(UserError, match=r"linear_1.bias has shape \(1, 32\) in .*, but \(1, 24\) in this model"):
        taken(model__d_ff=24)


def test_the_config_says_which_checkpoints_were_meant(tmp_path):
    run = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    config = tiny_run.config({"train.start_from": str(run)})
    resolved = resolve_config(config, load_assets(run, read_config(run)))
    chosen = resolved.train.start_from
    assert chosen.startswith(f"{run}@")
    assert resolve_config(resolved, load_assets(run, read_config(run))).train.start_from == chosen
    assert start_directory(chosen) == run
    shutil.rmtree(run / "checkpoints" / "00000016")
    with pytest.raises(UserError, match="have changed since"):
        start_directory(chosen)
    for directory in (tmp_path, Path("nowhere")):
        with pytest.raises(UserError, match="there is no run with checkpoints"):
            resolve_config(replace(config, {"train.start_from": str(directory)}), load_assets(run, read_config(run)))


def test_the_config_of_a_run_is_a_base_with_rows():
    run = tiny_run.finished()
    assert load_config(str(run)) == read_config(run)
    more = load_config(f"{run}:heads_4", {"train.steps": 7})
    assert (more.model.num_heads, more.model.d_k, more.model.d_v, more.train.steps) == (4, 4, 4, 7)
    with pytest.raises(UserError, match="has no row 'nothing'"):
        load_config(f"{run}:nothing")
