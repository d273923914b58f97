"""A run whose languages have a vocabulary each: no text of one side is read or written by the other's tokenizer."""

import json

import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax.data import EOS, PAD
from transformer_jax.run.compile import compile_program
from transformer_jax.run.saved import evaluate_run, load_params, translate

SOURCE_WORDS, TARGET_WORDS = "abcdefgh", "STUV"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for split, count in {"train": 80, "val": 16, "test": 16}.items():
        sources = [rng.choice(list(SOURCE_WORDS), rng.integers(1, 6)).tolist() for _ in range(count)]
        targets = [[TARGET_WORDS[SOURCE_WORDS.index(word) // 2] for word in source] for source in sources]
        for language, side in (("x", sources), ("y", targets)):
            (corpus / f"{split}.{language}").write_text("".join(" ".join(line) + "\n" for line in side))
    overrides = {
        "data.source": "parallel_text",
        "data.directory": str(corpus),
        "data.source_language": "x",
        "data.target_language": "y",
        "data.joint_vocabulary": False,
        "model.embedding.tying": "none",
        "decode.max_extra_length": 1,
    }
    return compile_program(tiny_run.config(overrides))


@pytest.fixture(scope="module")
def run(program, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("separate") / "run"
    tiny_run.train_here(workdir, compiled=program)
    return workdir


def test_tables_are_as_large_as_their_vocabularies(run):
    tables = {name: leaves["embedding"] for name, leaves in load_params(run, "last").items() if "embedding" in leaves}
    rows = {name: len(table) for name, table in tables.items()}
    assert rows == {"source_embedding": 4 + 8, "target_embedding": 4 + 4, "softmax": 4 + 4}


def test_training_evaluation_and_translation_write_the_target_language(program, run):
    sources = program.dataset.splits["test"].texts["sources"]
    written = (run / "predictions" / "test.txt").read_text().splitlines()
    words = {word for line in written for word in line.split()}
    assert words
    assert words <= set(TARGET_WORDS)
    assert [best[0][0] for best in translate(run, sources)] == written
    assert evaluate_run(run)["metrics"] == json.loads((run / "result.json").read_text())["metrics"]["test"]


def test_what_is_measured_and_written_is_the_models_own(program, run):
    """By ids that are looked up here."""
    split, params = program.dataset.splits["test"], load_params(run, "average:3")
    source, target = (
        {word: id_ for id_, word in enumerate(tokenizer.symbols, start=4)}
        for tokenizer in (program.dataset.assets.source, program.dataset.assets.target)
    )
    assert (set(source), set(target)) == (set(SOURCE_WORDS), set(TARGET_WORDS))
    inputs, targets = np.full((2, len(split), 8), PAD, np.int32)
    for row, (text, reference) in enumerate(zip(split.texts["sources"], split.texts["references"], strict=True)):
        for tokens, ids, side in ((inputs, source, text), (targets, target, reference)):
            found = [*(ids[word] for word in side.split()), EOS]
            tokens[row, : len(found)] = found
    logits = tiny.logits(program.config, params, {"inputs": inputs, "targets": targets}).astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0][targets != PAD]
    assert evaluate_run(run)["metrics"]["nll"] == pytest.approx(nll.mean(), rel=1e-4)
    written = (run / "predictions" / "test.txt").read_text().splitlines()
    first = logits[:, 0, PAD + 1 :].argmax(-1) + PAD + 1
    assert [target.get(line.partition(" ")[0], EOS) for line in written] == first.tolist()
