"""Letters and sounds: a dictionary as pairs, split by word."""

import hashlib

import pytest

from transformer_jax.config import freeze
from transformer_jax.data import Dataset, make_dataset
from transformer_jax.errors import UserError

WORDS = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]


def place(word: str) -> int:
    return int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 100


def dictionary() -> list[str]:
    """Two letters, two phonemes; words with an "e" are also said otherwise, and those with a "k" with other stress."""
    lines = []
    for word in WORDS:
        said = f"{word[0].upper()}H1 {word[1].upper()}"
        lines.append(f"{word} {said} # so it is said" if "a" in word else f"{word} {said}")
        if "e" in word:
            lines.append(f"{word}(2) X0 {word[1].upper()}")
        if "k" in word:
            lines.append(f"{word}(3) {said.replace('1', '0')}")
    return lines


def load(tmp_path, lines: list[str], source: str = "pronunciations(file='made_up')") -> Dataset:
    (tmp_path / "made_up").write_text("".join(f"{line}\n" for line in lines))
    values = {"source": source, "directory": str(tmp_path), "tokenizer": "words", "max_length": 8}
    return make_dataset(freeze({f"data.{name}": value for name, value in values.items()}).data)


def test_a_word_is_in_the_split_of_its_hash_and_every_pronunciation_of_train_is_a_pair(tmp_path):
    lines = dictionary()
    dataset = load(tmp_path, lines)
    for name, places in (("valid", range(5)), ("test", range(5, 15))):
        expected = [" ".join(word) for word in WORDS if place(word) in places]
        assert len(expected) > 1
        assert dataset.splits[name].texts["sources"] == expected
    of_train = [line for line in lines if place(line[:2]) >= 15]
    pairs = dataset.splits["train"]
    assert len(pairs) == len(of_train)
    decode = dataset.assets.target.decode
    assert [decode(pairs.sequences("inputs")[i].tolist()) for i in range(len(pairs))] == [
        " ".join(line[:2]) for line in of_train
    ]
    assert [decode(pairs.sequences("targets")[i].tolist()) for i in range(len(pairs))] == [
        " ".join(line.split()[1:3]) for line in of_train
    ]


def test_of_a_held_out_word_the_first_is_the_target_and_all_are_right(tmp_path):
    dataset = load(tmp_path, dictionary())
    test = dataset.splits["test"]
    (number, *_) = [n for n, source in enumerate(test.texts["sources"]) if "e" in source and "k" not in source]
    second = test.texts["sources"][number][2].upper()
    assert test.texts["references"][number] == f"EH1 {second} | X0 {second}"
    assert dataset.assets.target.decode(test.sequences("targets")[number].tolist()) == f"EH1 {second}"
    assert dataset.assets.target.encode(["|"]) == [[1]]  # what parts them is no token


def test_without_stress_pronunciations_that_differ_in_nothing_else_are_one(tmp_path):
    with_stress = load(tmp_path, dictionary())
    without = load(tmp_path, dictionary(), "pronunciations(file='made_up', stress=False)")
    assert without.fingerprint != with_stress.fingerprint
    of_k = sum("k" in word and place(word) >= 15 for word in WORDS)
    assert len(without.splits["train"]) == len(with_stress.splits["train"]) - of_k
    assert not any(digit in text for text in without.splits["test"].texts["references"] for digit in "012")


def test_what_is_right_is_part_of_the_fingerprint(tmp_path):
    lines = dictionary()
    fewer = [line for line in lines if not (line[2:5] == "(2)" and 5 <= place(line[:2]) < 15)]
    assert len(fewer) < len(lines)
    assert load(tmp_path, lines).fingerprint != load(tmp_path, fewer).fingerprint


@pytest.mark.parametrize(
    ("lines", "source", "said"),
    [
        (["ak A K", "al"], "pronunciations(file='made_up')", "made_up, line 2: holds no word with phonemes"),
        (["ak A K", "", "al A L"], "pronunciations(file='made_up')", "made_up, line 2: holds no word"),
        (["ak A K"], "pronunciations(file='made_up')", "has no sentence pair"),
        (["ak A K"], "pronunciations(file='other')", "other: cannot be read"),
        (["ak A K"], "pronunciations(file=' ')", "must be the name of a file"),
    ],
)
def test_what_is_no_dictionary_is_refused(tmp_path, lines, source, said):
    with pytest.raises(UserError) as refused:
        load(tmp_path, lines, source)
    assert said in str(refused.value)
