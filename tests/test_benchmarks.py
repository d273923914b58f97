"""The benchmarks of training, on a tiny model and without peers: what is measured, counted, told and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.data import PAD
from transformer_jax.errors import UserError
from transformer_jax.loading import load_module
from transformer_jax.run.resolve import resolve_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def train(monkeypatch):
    monkeypatch.delenv("TRANSFORMER_JAX_PEERS", raising=False)
    module = load_module(BENCHMARKS / "train.py", "run")
    monkeypatch.setattr("benchmarks.training.compile_program", lambda config: tiny_run.program())
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr("benchmarks.models.STEPS", 2)
    return module


def test_a_missing_peer_is_said_to_be_missing_and_ours_is_measured(train, tmp_path):
    said: list[str] = []
    (row,) = train.run(tiny_run.config(), said.append)
    assert "TRANSFORMER_JAX_PEERS" in said[0]
    assert list(row["targets_per_second"]) == ["ours"]
    assert row["ours_over"] == {}
    batches = [tiny_run.program().plan.batch_at(step, 0) for step in range(2)]
    tokens = sum(int((batch["targets"] != PAD).sum()) for batch in batches)
    assert row["targets_per_second"]["ours"] == pytest.approx(tokens / row["rounds"]["ours"][0])
    outcome = load_module(BENCHMARKS / "outcome.py", "write")
    for name in ("one", "other", "one"):
        path, picture = outcome.write("train", [{**row, "model": name}], tmp_path)
    rows = json.loads(path.read_text())["rows"]
    assert [of_model["model"] for of_model in rows] == ["one", "other"]
    assert rows[0]["measured"]["processors"] >= 1
    assert picture.read_text().count("real targets (tokens, images) a second") == 2


def test_padded_batches_are_of_random_examples_and_as_wide_as_the_longest(train):
    training = load_module(BENCHMARKS / "training.py", "padded")
    program = tiny_run.program()
    split = program.dataset.splits["train"]
    size = round(len(split) / program.plan.batches_per_epoch)
    count = len(split) // size
    batches = training.padded(program, count)
    assert {len(batch["targets"]) for batch in batches} == {size}
    assert all((batch["targets"][:, -1] != PAD).any() for batch in batches)
    chosen = np.random.default_rng(0).permutation(len(split))[: count * size]  # no example twice
    assert training.real_targets(batches) == split.sequences("targets").lengths[chosen].sum()


def test_what_the_peers_have_no_model_for_is_refused(train):
    models = load_module(BENCHMARKS / "models.py", "described")
    assets = tiny_run.program().dataset.assets
    described = models.described(resolve_config(tiny_run.config(), assets))
    assert (described["d_k"], described["num_encoder_layers"], described["vocab_size"]) == (8, 1, 10)
    no_wo = tiny_run.config({"model.attention.output_projection": "none"})
    with pytest.raises(UserError, match=r"model\.attention\.encoder\.output_projection = 'none'"):
        models.described(resolve_config(no_wo, assets))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--models=nothing"], "--models=nothing: there is no such model"),
        (["populations"], "benchmark populations: give one of --config"),
        (["populations", "--models=scan"], "benchmark populations: give one of --config"),
        (["train", "--models=scan", "--config.seed=1"], "--config.seed: give --config, too"),
    ],
)
def test_what_a_benchmark_is_not_of_is_refused(arguments, sentence, capsys):
    assert cli.main(["benchmark", *arguments]) == 2
    assert sentence in capsys.readouterr().err
