"""Spec strings: the signature of the entry is the schema."""

import flax.linen as nn
import pytest

from transformer_jax.errors import UserError
from transformer_jax.registry import options, parse_spec, resolve


def plain():
    return "plain"


def with_options(supplied, *, base: float = 10.0, size: int = 3, name_of: str = "x", on: bool = False, limit=None):
    return supplied, base, size, name_of, on, limit


class Module(nn.Module):
    width: int
    depth: int = 2


TABLE = {"plain": plain, "with_options": with_options, "module": Module}


def test_an_entry_is_found_with_its_keywords_bound():
    assert resolve(TABLE, "plain", "a.b")() == "plain"
    found = resolve(TABLE, "with_options(base=2, name_of='y', on=True, limit=7)", "a.b")
    assert found(1) == (1, 2, 3, "y", True, 7)
    assert resolve(TABLE, "module(depth=5)", "a.b")(width=1).depth == 5


def test_what_the_caller_supplies_is_not_an_option():
    assert list(options(with_options)) == ["base", "size", "name_of", "on", "limit"]
    assert list(options(Module)) == ["depth"]  # neither width nor flax's own name and parent


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("plane", ["unknown 'plane'", "'plain'", "with_options"]),
        ("plain(base=1)", ["takes no 'base'", "none"]),
        ("with_options(bass=1)", ["'bass'", "'base'"]),
        ("with_options(supplied=1)", ["takes no 'supplied'"]),
        ("with_options(size=1.5)", ["1.5", "int"]),
        ("with_options(size=True)", ["True", "int"]),
        ("with_options(on=1)", ["on=", "bool"]),
        ("with_options(base='2')", ["'2'", "float"]),
        ("with_options(base=True)", ["True", "float"]),
        ("module(name='x')", ["takes no 'name'"]),
        ("with_options(1)", ["by keyword"]),
        ("with_options(**{'base': 1})", ["by keyword"]),
        ("with_options(base=1+x)", ["literals"]),
        ("with_options(base=print())", ["literals"]),
        ("plain()", ["not of the form"]),
        ("plain ", ["not of the form"]),
        (" plain", ["not of the form"]),
        ("(plain)", ["not of the form"]),
        ("", ["not of the form"]),
        ("plain(", ["not of the form"]),
        ("1", ["not of the form"]),
        ("a.b", ["not of the form"]),
        ("plain; plain", ["not of the form"]),
        ("\0", ["not of the form"]),
        ("(" * 300 + ")" * 300, ["not of the form"]),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence_that_names_the_field(spec, words):
    with pytest.raises(UserError) as error:
        resolve(TABLE, spec, "model.slot")
    assert [word for word in ["model.slot", *words] if word not in str(error.value)] == []


def test_parse_spec():
    assert parse_spec("a", "f") == ("a", {})
    assert parse_spec("a(b=-1, c=[1, 'x'])", "f") == ("a", {"b": -1, "c": [1, "x"]})
