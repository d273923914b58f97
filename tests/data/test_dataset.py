"""From a corpus to arrays: lengths, what is dropped or cut, fingerprints and the cache."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from transformer_jax.config import DataConfig
from transformer_jax.data import EOS, TokenizerPair, encode_pairs, encoding, make_dataset
from transformer_jax.errors import UserError

TRAIN = [("a b", "A B C"), ("a b c d e f", "A"), ("b", "B C"), ("c", "C D E F G H")]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    held_out = [("a b c d e f", "A B C D E F"), ("", "B")]
    for split, pairs in {"train": TRAIN, "val": held_out, "test": held_out}.items():
        for language, side in zip("xy", zip(*pairs, strict=True), strict=True):
            (corpus / f"{split}.{language}").write_text("".join(f"{line}\n" for line in side))
    return DataConfig(directory=str(corpus), source_language="x", target_language="y", tokenizer="words", max_length=4)


def texts(tokenizer, ragged):
    return [tokenizer.decode(ragged[i].tolist()) for i in range(len(ragged))]


def test_over_long_training_pairs_are_dropped(config):
    dataset = make_dataset(config)
    train = dataset.splits["train"]
    assert texts(dataset.tokenizers.source, train.inputs) == ["a b", "b"]
    assert texts(dataset.tokenizers.target, train.targets) == ["A B C", "B C"]
    assert (train.dropped, train.truncated) == (2, 0)


def test_or_cut(config):
    dataset = make_dataset(dataclasses.replace(config, over_long="truncate"))
    train = dataset.splits["train"]
    assert texts(dataset.tokenizers.source, train.inputs) == ["a b", "a b c", "b", "c"]
    assert texts(dataset.tokenizers.target, train.targets) == ["A B C", "A", "B C", "C D E"]
    assert (train.dropped, train.truncated) == (0, 2)


@pytest.mark.parametrize("over_long", ["drop", "truncate"])
def test_held_out_splits_keep_every_pair_and_their_texts(config, over_long):
    dataset = make_dataset(dataclasses.replace(config, over_long=over_long))
    for name in ("valid", "test"):
        split = dataset.splits[name]
        assert split.sources == ["a b c d e f", ""]
        assert split.references == ["A B C D E F", "B"]
        assert texts(dataset.tokenizers.source, split.inputs) == ["a b c", ""]
        assert (split.dropped, split.truncated) == (0, 1)


def test_what_the_tokenizer_is_trained_without_is_said_and_recorded(config):
    """The same with tokenizers that were saved, as when a run resumes."""
    corpus = Path(config.directory)
    (corpus / "train.x").write_text("a b\n" * 20 + f"{'b' * 4193}\n\u2585\n")
    (corpus / "train.y").write_text("A B\n" * 20 + f"{'c' * 4193}\nC\n")
    config = dataclasses.replace(config, tokenizer="sentencepiece(vocab_size=270)", max_length=9000)
    dataset = make_dataset(config)
    for found in (dataset, make_dataset(config, dataset.tokenizers)):
        assert found.summary()["left_out_of_tokenizer"] == 3
        (said,) = found.losses(config.max_length)
        assert said.startswith(
            "The tokenizer is trained without 3 sentences of train: SentencePiece leaves out what is"
        )
    assert make_dataset(dataclasses.replace(config, tokenizer="words")).losses(config.max_length) == []


def test_every_row_ends_in_eos_and_fits(config):
    for over_long in ("drop", "truncate"):
        for split in make_dataset(dataclasses.replace(config, over_long=over_long)).splits.values():
            for side in (split.inputs, split.targets):
                assert side.values.dtype == np.int32
                assert side.lengths.max() <= 4
                assert (side.values[side.offsets[1:] - 1] == EOS).all()
                assert (side.values == EOS).sum() == len(side)


def test_nothing_left(config):
    with pytest.raises(UserError, match=r"max_length is 2, .* shortest has 3 tokens"):
        make_dataset(dataclasses.replace(config, max_length=2))


def test_summary_counts(config):
    summary = make_dataset(config).summary()
    assert summary["source_vocabulary"] == 4 + len("abcdefABCDEFGH")
    assert summary["splits"]["train"] == {
        "sentences": 2, "source_tokens": 5, "target_tokens": 7, "dropped": 2, "truncated": 0
    }  # fmt: skip


def test_what_is_not_seen_is_said(config, tmp_path):
    for side in "xy":
        with (tmp_path / "corpus" / f"train.{side}").open("a") as file:
            file.write("\n")
    limit = "a side is longer than data.max_length = 4 tokens"
    cut = [f"1 of 2 pairs of {name} cut: {limit}, and what lies beyond is not seen." for name in ("valid", "test")]
    assert make_dataset(config).losses(config.max_length) == [
        "1 pairs of train left out: a side is empty.", f"2 of 4 pairs of train left out: {limit}.", *cut,
    ]  # fmt: skip
    shorter = dataclasses.replace(config, over_long="truncate")
    assert f"2 of 4 pairs of train cut: {limit}" in make_dataset(shorter).losses(config.max_length)[1]
    assert make_dataset(dataclasses.replace(config, max_length=7)).losses(7)[1:] == []


def test_given_tokenizers_are_used(config):
    separate = make_dataset(dataclasses.replace(config, joint_vocabulary=False))
    again = make_dataset(config, separate.tokenizers)
    assert again.tokenizers is separate.tokenizers
    assert again.fingerprint == separate.fingerprint
    assert (again.splits["train"].targets.values == separate.splits["train"].targets.values).all()


def test_each_side_has_its_own_tokenizer_where_vocabularies_are_separate(config):
    config = dataclasses.replace(config, joint_vocabulary=False, over_long="truncate")
    dataset = make_dataset(config)
    source, target = dataset.tokenizers.source, dataset.tokenizers.target
    assert (sorted(source.symbols), sorted(target.symbols)) == (list("abcdef"), list("ABCDEFGH"))
    train = dataset.splits["train"]
    assert (texts(source, train.inputs)[0], texts(target, train.targets)[0]) == ("a b", "A B C")
    pairs = encode_pairs(["c a", "f"], ["H A", "G"], config, dataset.tokenizers)
    assert (texts(source, pairs.inputs), texts(target, pairs.targets)) == (["c a", "f"], ["H A", "G"])


def test_saved_tokenizers_come_back_to_their_sides(config, tmp_path):
    pair = make_dataset(dataclasses.replace(config, joint_vocabulary=False)).tokenizers
    pair.save(tmp_path)
    loaded = TokenizerPair.load(tmp_path)
    assert (loaded.source.symbols, loaded.target.symbols) == (pair.source.symbols, pair.target.symbols)
    assert loaded.source.symbols != loaded.target.symbols


def test_fingerprint_sees_texts_and_tokenizer(config):
    first = make_dataset(config).fingerprint
    assert make_dataset(dataclasses.replace(config, tokens_per_batch=99)).fingerprint == first
    assert make_dataset(dataclasses.replace(config, tokenizer="characters", max_length=20)).fingerprint != first
    assert make_dataset(dataclasses.replace(config, source_language="y", target_language="x")).fingerprint != first


@pytest.fixture
def cached(config, monkeypatch):
    monkeypatch.setattr(encoding, "SMALLEST_CACHED", 0)
    return config


def equal(first, second):
    return all(
        (getattr(getattr(first.splits[name], side), field) == getattr(getattr(second.splits[name], side), field)).all()
        for name in first.splits
        for side in ("inputs", "targets")
        for field in ("values", "offsets")
    )


def test_cache_saves_encoding_and_changes_nothing(cached, monkeypatch):
    first = make_dataset(cached)
    (file,) = encoding.cache_directory().iterdir()
    monkeypatch.setattr(encoding, "_encode_all", lambda *_: pytest.fail("encoded again"))
    assert equal(make_dataset(cached), first)
    assert equal(make_dataset(dataclasses.replace(cached, tokens_per_batch=99)), first)
    with pytest.raises(pytest.fail.Exception, match="encoded again"):
        make_dataset(dataclasses.replace(cached, joint_vocabulary=False))
    assert file.suffix == ".npz"


def test_small_corpora_are_not_cached(config):
    make_dataset(config)
    assert not encoding.cache_directory().exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage"])
def test_damaged_cache_is_made_anew(cached, damage):
    first = make_dataset(cached)
    (file,) = encoding.cache_directory().iterdir()
    good = file.read_bytes()
    middle = good.index(first.splits["valid"].inputs.values.tobytes()[-4:]) if damage == "flip" else len(good) // 2
    bad = {"truncate": good[:middle], "flip": good[:middle] + b"\x7f" + good[middle + 1 :], "garbage": b"x"}[damage]
    file.write_bytes(bad)
    assert equal(make_dataset(cached), first)
    assert file.read_bytes() == good


def test_cache_that_cannot_be_written_is_no_error(cached, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(make_dataset(cached).splits["train"]) == 2
