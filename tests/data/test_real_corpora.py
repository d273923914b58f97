"""The corpora of the results, where they are at hand."""

import os
from pathlib import Path

import pytest

from transformer_jax.config import DataConfig
from transformer_jax.data import make_dataset, make_plan

ROOT = os.environ.get("TRANSFORMER_JAX_DATA")

# directory, languages, pairs of train, valid and test
CORPORA = {
    "multi30k": ("multi30k", "en", "de", (29_000, 1_014, 1_000)),
    "multi30k_tok": ("multi30k/tok", "en", "de", (29_000, 1_014, 1_000)),
    "multi30k_fr": ("multi30k", "en", "fr", (29_000, 1_014, 1_000)),
    "tatoeba": ("tatoeba_ende", "de", "en", (161_782, 2_000, 2_000)),
    "enja": ("enja", "ja", "en", (50_000, 500)),
}


@pytest.mark.skipif(ROOT is None, reason="TRANSFORMER_JAX_DATA is not set: no corpora to read")
@pytest.mark.parametrize("name", CORPORA)
def test_corpus(name, tmp_path, monkeypatch):
    directory, source, target, sizes = CORPORA[name]
    if not (Path(str(ROOT)) / directory).is_dir():
        pytest.skip(f"{directory} is not in TRANSFORMER_JAX_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = DataConfig(
        directory=directory, source_language=source, target_language=target, tokenizer="sentencepiece(vocab_size=8000)"
    )
    dataset = make_dataset(config)
    assert tuple(map(len, dataset.splits.values())) == sizes
    for split in list(dataset.splits.values())[1:]:
        for tokenizer, side, lines in (
            (dataset.assets.source, split.sequences("inputs"), split.texts["sources"]),
            (dataset.assets.target, split.sequences("targets"), split.texts["references"]),
        ):
            assert [tokenizer.decode(side[i].tolist()) for i in range(len(side))] == lines
    plan = make_plan(dataset.splits["train"], config)
    assert len(plan.shapes) == config.length_classes
    assert max(plan.padding_share.values()) < 0.35
