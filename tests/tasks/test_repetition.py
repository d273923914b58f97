"""How much of what is written was not written before."""

import pytest

from transformer_jax.errors import UserError
from transformer_jax.tasks.text_metrics import text_metrics

TEXTS = ["to be or not to be", "to be", "so", ""]


def test_shares_of_different_sequences_of_words():
    """Pairs: "to be" three times, "be or", "or not", "not to" once each."""
    found = text_metrics(["distinct", "unrepeated", "distinct(n=1)", "unrepeated(n=3)"], TEXTS, [""] * 4)
    assert found["distinct"] == pytest.approx(4 / 6)
    assert found["unrepeated"] == pytest.approx((4 / 5 + 1) / 2)
    assert found["distinct(n=1)"] == pytest.approx(5 / 9)
    assert found["unrepeated(n=3)"] == 1


def test_texts_too_short_for_any_sequence_score_nothing():
    assert text_metrics(["distinct", "unrepeated"], ["so"], [""]) == {"distinct": 0, "unrepeated": 0}


@pytest.mark.parametrize("spec", ["distinct(n=0)", "unrepeated(n=-1)", "distinct(n=101)"])
def test_lengths_that_are_none_are_refused(spec):
    with pytest.raises(UserError, match="whole number from 1 to 100"):
        text_metrics([spec], ["a b"], ["a b"])
