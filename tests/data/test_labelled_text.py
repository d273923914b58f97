"""Sentences with labels: which lines are in which split, and what they become."""

import numpy as np
import pytest

from transformer_jax.config import freeze
from transformer_jax.data import make_dataset
from transformer_jax.data.images import NO_LABEL
from transformer_jax.data.labelled_text import SentenceClasses
from transformer_jax.errors import UserError
from transformer_jax.vocabulary import EOS, NUM_AFTER


def dataset(directory, source="labelled_text", **fields):
    values = {f"data.{name}": value for name, value in fields.items()}
    config = {"model.family": "encoder_only", "task.name": "classification", "data.tokenizer": "words", **values}
    return make_dataset(freeze({**config, "data.source": source, "data.directory": str(directory)}).data)


def write(path, lines):
    path.write_text("".join(f"{label}\t{text}\n" for label, text in lines))


def texts(dataset, split):
    return dataset.splits[split].texts["sources"]


def test_without_a_file_for_it_every_tenth_line_is_valid(tmp_path):
    write(tmp_path / "train.tsv", [("ab"[n % 2], f"w{n}") for n in range(30)])
    write(tmp_path / "test.tsv", [("a", "w0"), ("b", "new")])
    found = dataset(tmp_path)
    assert texts(found, "valid") == ["w9", "w19", "w29"]
    assert texts(found, "test") == ["w0", "new"]
    assert len(found.splits["train"]) == 27
    assert found.splits["train"].texts == {}
    write(tmp_path / "dev.tsv", [("a", "held out")])
    found = dataset(tmp_path)
    assert texts(found, "valid") == ["held out"]
    assert len(found.splits["train"]) == 30


def test_folds_are_counted_within_each_class(tmp_path):
    write(tmp_path / "all.tsv", [("0", f"n{n}") for n in range(23)] + [("1", f"p{n}") for n in range(25)])
    found = dataset(tmp_path, "labelled_text(file='all.tsv', fold=9)")
    assert texts(found, "test") == ["n9", "n19", "p9", "p19"]
    assert texts(found, "valid") == ["n0", "n10", "n20", "p0", "p10", "p20"]
    assert len(found.splits["train"]) == 48 - 10


def test_a_sentence_becomes_its_words_and_an_end_and_a_label_its_number(tmp_path):
    write(tmp_path / "train.tsv", [("B:x", "Cat sat"), ("A", "a b c d e f"), ("B:y", "Cat")])
    write(tmp_path / "test.tsv", [("A", "cat")])
    write(tmp_path / "dev.tsv", [("A", "cat")])
    found = dataset(tmp_path, "labelled_text(lower=True)", max_length=4)
    assert found.assets.names == ("A", "B")
    columns, encode = found.splits["train"].columns, found.assets.tokenizer.encode
    (cat, sat), (rest,) = encode(["cat sat"])[0], encode(["a b c"])
    assert [columns["inputs"].rows[i].tolist() for i in range(3)] == [[cat, sat, EOS], [*rest, EOS], [cat, EOS]]
    assert columns["labels"].rows.tolist() == [1, 0, 1]
    assert found.splits["train"].truncated == 1
    empty = columns["labels"].gather(np.array([0, -1]), 0)
    assert empty.tolist() == [1, NO_LABEL]
    assert dataset(tmp_path, "labelled_text(fine=True)").assets.names == ("A", "B:x", "B:y")
    assert found.assets.sizes() == {"num_classes": 2, "vocab_size": found.assets.tokenizer.vocab_size + NUM_AFTER}


def test_what_is_saved_with_a_run_is_read_again(tmp_path):
    write(tmp_path / "train.tsv", [("a", "one"), ("b", "two")])
    write(tmp_path / "dev.tsv", [("a", "one")])
    write(tmp_path / "test.tsv", [("a", "one")])
    assets = dataset(tmp_path).assets
    (tmp_path / "kept").mkdir()
    assets.save(tmp_path / "kept")
    again = SentenceClasses.load(tmp_path / "kept")
    assert (again.names, again.fingerprint) == (assets.names, assets.fingerprint)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a\tx", "b"], ["train.tsv, line 2", "tab"]),
        (["a\tx", "b\t "], ["train.tsv, line 2", "text"]),
        (["a\tx", "a\ty"], ["one label alone"]),
        (["b\tx", "c\ty"], ["test has the label 'a'"]),
    ],
)
def test_what_is_no_such_file_is_refused(lines, words, tmp_path):
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    for name in ("dev", "test"):
        write(tmp_path / f"{name}.tsv", [("a" if name == "test" else "b", "x")])
    with pytest.raises(UserError) as refused:
        dataset(tmp_path)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "source", ["labelled_text(fold=3)", "labelled_text(file='x', fold=10)", "labelled_text(file='')"]
)
def test_options_that_cannot_be_are_refused(source, tmp_path):
    with pytest.raises(UserError, match="labelled_text"):
        dataset(tmp_path, source)
