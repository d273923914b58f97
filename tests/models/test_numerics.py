"""Every entry of every slot computes what it always did: finished runs are used again, also by later versions."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

pytestmark = pytest.mark.newest

RECORDED = json.loads(Path(__file__).with_suffix(".json").read_text())
CHANGED = """computes something else now. If you did not mean to change the numbers, find out what did. If you did,
record the new one in test_numerics.json, and raise the NUMERICS in run/identity.py, under which finished runs are used
again.
"""


@pytest.mark.parametrize("choice", RECORDED)
def test_entry_computes_what_it_did(choice):
    """A weighted sum of all logits of random parameters."""
    config = tiny.config(dict([choice.split("=")]))
    logits = tiny.logits(config, tiny.params(config), tiny.batch()).ravel()
    found = float(logits @ np.cos(np.arange(logits.size)))
    assert found == pytest.approx(RECORDED[choice], abs=2e-3), f"{choice} {CHANGED}"
