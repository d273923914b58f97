"""Masked language modelling: which tokens are hidden, what stands there, and what is measured of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.config import replace
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.tasks import check, task_of
from transformer_jax.tasks.masked_language_modelling import hide
from transformer_jax.vocabulary import EOS, NUM_SPECIALS, PAD, mask_token

MASKED = {"model.family": "encoder_only", "task.name": "masked_language_modelling", "model.num_classes": 0}
CONFIG = tiny.config({**MASKED, "model.vocab_size": 1000})
MASK = mask_token(1000)


def hidden(config, ids, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(ids))
    return [np.asarray(part) for part in hide(config, jnp.asarray(ids), keys)]


def words(rows=200, width=100):
    """Rows of other lengths, EOS their last token."""
    return tiny.sentences([width - i % 50 for i in range(rows)], width, vocab_size=998)


def test_fifteen_in_a_hundred_are_hidden_and_of_these_ten_are_others_and_ten_are_seen():
    ids = words()
    shown, places, counted = hidden(CONFIG, ids)
    candidates = ((ids != PAD) & (ids != EOS)).sum(axis=1)
    np.testing.assert_array_equal(counted.sum(axis=1), np.round(0.15 * candidates))
    before, after = (np.take_along_axis(each, places, axis=1)[counted] for each in (ids, shown))
    assert not np.isin(before, [PAD, EOS]).any()
    shares = [(after == MASK).mean(), ((after != MASK) & (after != before)).mean(), (after == before).mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)
    others = after[(after != MASK) & (after != before)]
    assert NUM_SPECIALS <= others.min() < others.max() < MASK
    untouched = np.ones_like(ids, bool)
    np.put_along_axis(untouched, places, ~counted, axis=1)
    np.testing.assert_array_equal(shown[untouched], ids[untouched])


def test_every_place_is_as_likely_and_none_is_hidden_twice():
    _, places, counted = hidden(CONFIG, tiny.sentences([21] * 2000, 21, vocab_size=998))
    assert all(len(set(row)) == len(row) for row in places.tolist())
    np.testing.assert_allclose(np.bincount(places[counted], minlength=20) / 2000, 0.15, atol=0.035)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"task.hidden": 0.4}, (0.4, 0.8, 0.1)),
        ({"task.masked": 1.0, "task.random": 0.0}, (0.15, 1.0, 0.0)),
        ({"task.masked": 0.0, "task.random": 1.0}, (0.15, 0.0, 1.0)),
    ],
)
def test_the_shares_are_those_of_the_config(fields, expected):
    ids = words()
    shown, places, counted = hidden(replace(CONFIG, fields), ids)
    before, after = (np.take_along_axis(each, places, axis=1)[counted] for each in (ids, shown))
    candidates = ((ids != PAD) & (ids != EOS)).sum()
    found = counted.sum() / candidates, (after == MASK).mean(), ((after != MASK) & (after != before)).mean()
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_shares_that_are_more_than_all_are_refused():
    with pytest.raises(UserError, match=r"task.masked = 0.8 and task.random = 0.3 are together more"):
        task_of(CONFIG).check(replace(CONFIG, {"task.random": 0.3}))
    with pytest.raises(UserError, match=r"model.num_classes = 3: hidden tokens have no classes"):
        task_of(CONFIG).check(replace(CONFIG, {"model.num_classes": 3}))
    with pytest.raises(UserError, match=r"'mnist' holds images, but .* learns from text"):
        check(replace(CONFIG, {"data.source": "mnist"}))


def measured(batch, key=None):
    config = tiny.config({**MASKED, "model.dropout_rate": 0.0})
    found = task_of(config).measure(config, build_model(config.model), tiny.params(config), batch, key)
    return np.asarray(found["nll"][0])


def test_in_evaluation_what_is_hidden_is_a_function_of_the_row_alone():
    ids = tiny.sentences([12] * 6, 12, vocab_size=9)
    examples = np.arange(6)
    with jax.disable_jit():
        all_at_once = measured({"inputs": ids, "example": examples})
        turned = measured({"inputs": ids[::-1], "example": examples[::-1]})
        other = measured({"inputs": ids, "example": examples + 6})
        steps = [measured({"inputs": ids}, jax.random.key(step)) for step in (0, 0, 1)]
    np.testing.assert_allclose(all_at_once, turned[::-1], rtol=1e-5)
    assert not np.allclose(all_at_once, other)
    np.testing.assert_array_equal(steps[0], steps[1])
    assert not np.allclose(steps[0], steps[2])


def test_what_is_measured_is_the_likelihood_of_the_hidden_tokens():
    config = tiny.config({**MASKED, "train.label_smoothing": 0.0, "task.hidden": 0.5})
    params, model = tiny.params(config), build_model(config.model)
    ids = np.concatenate([tiny.sentences([9, 5, 2, 1], 9, vocab_size=9)])
    with jax.disable_jit():
        found = task_of(config).measure(config, model, params, {"inputs": jnp.asarray(ids)}, None)
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(jnp.arange(4))
        shown, places, counted = map(np.asarray, hide(config, jnp.asarray(ids), keys))
        logits = np.asarray(model.apply(params, {"inputs": jnp.asarray(shown)})).astype(np.float64)
    assert logits.shape == (4, 9, 11)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [-sum(log_probs[row, place, ids[row, place]] for place in places[row][counted[row]]) for row in range(4)]
    np.testing.assert_allclose(found["nll"][0], expected, rtol=1e-4)
    np.testing.assert_array_equal(found["nll"][1], [4, 2, 1, 0])
