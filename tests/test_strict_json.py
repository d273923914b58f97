"""The one writer of JSON."""

import json
import math

import numpy as np
import pytest

from transformer_jax.strict_json import only_finite, to_json

NOT_FINITE = [math.nan, math.inf, -math.inf, np.float64("nan")]


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("number", NOT_FINITE)
def test_a_number_that_is_not_finite_becomes_null_wherever_it_stands(number):
    content = {"a": number, "b": [1.5, (number, {"c": number})], "d": "NaN", "e": [True, None, 3]}
    expected = {"a": None, "b": [1.5, [None, {"c": None}]], "d": "NaN", "e": [True, None, 3]}
    assert json.loads(to_json(content), parse_constant=refuse) == expected
    assert json.loads(to_json(content, indent=1), parse_constant=refuse) == expected
    assert only_finite(content) == expected


def test_what_is_finite_is_written_as_python_writes_it():
    content = {"z": [1e300, -0.0, 5e-324, (1, 2)], "a": {"\ud800": "\u00e4"}}
    assert to_json(content, indent=1) == json.dumps(content, indent=1)
    assert to_json(content, sort_keys=True, separators=(",", ":")) == json.dumps(
        content, sort_keys=True, separators=(",", ":")
    )
