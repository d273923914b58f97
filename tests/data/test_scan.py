"""The generator against the counts and hashes of the published files."""

import collections
import hashlib
import importlib.resources
import json

import pytest
from corpora import make_corpus

from transformer_jax.config import DataConfig
from transformer_jax.data import scan
from transformer_jax.errors import UserError

EXPECTED = json.loads((importlib.resources.files("transformer_jax.data") / "scan_expected.json").read_text())
HALVES = [(split, half) for split in EXPECTED["splits"] for half in ("train", "test")]


def sha256_sorted(lines):
    return hashlib.sha256(("\n".join(sorted(lines)) + "\n").encode()).hexdigest()


def corpus(spec):
    return make_corpus(DataConfig(source=spec, tokenizer="words"))


def pairs(split):
    return list(zip(split.sources, split.references, strict=True))


def assert_matches(found, expected):
    lines = [scan.line(pair) for pair in found]
    lengths = [scan.num_actions(pair) for pair in found]
    assert len(lines) == expected["lines"]
    assert len(set(lines)) == expected["unique_lines"]
    assert (min(lengths), max(lengths)) == (expected["min_actions"], expected["max_actions"])
    assert sha256_sorted(lines) == expected["sha256_sorted_lines"]
    assert sha256_sorted(set(lines)) == expected["sha256_sorted_unique_lines"]


def test_all_commands():
    found = scan.commands()
    assert_matches(found, EXPECTED["all_commands"])
    histogram = collections.Counter(map(scan.num_actions, found))
    assert {str(length): count for length, count in histogram.items()} == EXPECTED["action_length_histogram"]
    assert len({actions for _, actions in found}) == EXPECTED["distinct_action_sequences"]
    assert sorted({word for command, _ in found for word in command.split()}) == EXPECTED["command_vocabulary"]


def test_expected_file_names_every_split():
    assert set(EXPECTED["splits"]) == set(scan.SPLITS)


@pytest.mark.parametrize(("split", "half"), HALVES)
def test_published_split(split, half):
    train, test = scan.halves(split)
    assert_matches({"train": train, "test": test}[half], EXPECTED["splits"][split][half])


def test_simple_test_indices_file():
    content = (importlib.resources.files("transformer_jax.data") / "scan_simple_test_indices.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == EXPECTED["simple_test_indices"]["sha256_of_file"]


@pytest.mark.parametrize("split", scan.SPLITS)
def test_validation_is_cut_from_train_and_nothing_is_lost(split):
    splits = corpus(f"scan(split={split!r})").splits
    train, test = scan.halves(split)
    assert sorted(pairs(splits["train"]) + pairs(splits["valid"])) == sorted(train)
    assert sorted(pairs(splits["test"])) == sorted(test)
    assert not set(splits["train"].sources) & set(splits["valid"].sources)  # all copies of a line on one side
    assert len(set(splits["valid"].sources)) / len(set(train)) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(("split", "primitive", "copies"), [("jump", "jump", 1467), ("turn_left", "turn left", 2189)])
def test_example_of_held_out_primitive_stays_in_train(split, primitive, copies, monkeypatch):
    monkeypatch.setattr(scan, "_is_valid", lambda command: command in (primitive, "walk"))
    splits = corpus(f'scan(split="addprim_{split}")').splits
    assert splits["train"].sources.count(primitive) == copies
    assert splits["valid"].sources == ["walk"]


def test_length_cutoff_and_max_actions():
    splits = corpus('scan(split="length", cutoff=26)').splits
    assert max(map(scan.num_actions, pairs(splits["train"]))) == 26
    assert min(map(scan.num_actions, pairs(splits["test"]))) == 27
    short = corpus("scan(max_actions=6)").splits
    assert all(max(map(scan.num_actions, pairs(split))) == 6 for split in short.values())
    assert sum(map(len, short.values())) == sum(EXPECTED["action_length_histogram"][str(n)] for n in range(1, 7))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ('scan(split="lenght")', "did you mean 'length'"),
        ('scan(split="simple", cutoff=26)', 'read by split="length" only'),
        ('scan(split="length", cutoff=48)', "leaves a half empty"),
        ("scan(max_actions=0)", "max_actions=0"),
        ('scan(max_actions="6")', "max_actions='6'"),
        ('scan(split="length", max_actions=20)', "the split 'test' has no sentence pair"),
    ],
)
def test_impossible_options_are_refused(spec, says):
    with pytest.raises(UserError, match=says):
        corpus(spec)
