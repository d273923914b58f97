"""Copy, reverse and sort."""

import pytest
from corpora import make_corpus

from transformer_jax.config import DataConfig
from transformer_jax.errors import UserError

ANSWERS = {"copy": list, "reverse": lambda x: x[::-1], "sort": sorted}


def splits(spec):
    return make_corpus(DataConfig(source=spec, tokenizer="words")).splits


@pytest.mark.parametrize("task", ANSWERS)
def test_targets_follow_the_rule(task):
    made = splits(f"{task}(symbols=12, min_length=2, max_length=5, examples=100)")
    assert {name: len(split) for name, split in made.items()} == {"train": 100, "valid": 10, "test": 10}
    for split in made.values():
        for source, reference in zip(split.sources, split.references, strict=True):
            sequence = [int(symbol) for symbol in source.split()]
            assert 2 <= len(sequence) <= 5
            assert set(sequence) <= set(range(12))
            assert [int(symbol) for symbol in reference.split()] == ANSWERS[task](sequence)


def test_no_example_twice_and_the_same_at_every_call():
    spec = "copy(symbols=3, min_length=1, max_length=5, examples=120)"
    sources = [source for split in splits(spec).values() for source in split.sources]
    assert len(sources) == len(set(sources)) == 144
    assert sources == [source for split in splits(spec).values() for source in split.sources]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("copy(symbols=2, max_length=3)", "only 14 exist"),
        ("sort(min_length=5, max_length=4)", "min_length <= max_length"),
        ("reverse(symbols=0)", "symbols"),
    ],
)
def test_impossible_options_are_refused(spec, says):
    with pytest.raises(UserError, match=says):
        splits(spec)
