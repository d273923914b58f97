"""Language modelling: what is learnt, and what is written on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax import tasks
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.tasks import task_of
from transformer_jax.tasks.language_modelling import Continuations
from transformer_jax.vocabulary import EOS

OF = {**tiny.of_family("decoder_only"), "data.source": "text", "decode.strategy": "greedy"}
CONFIG = tiny.config({**OF, "data.max_length": 8, "decode.max_extra_length": 50})


def test_what_is_learnt_is_the_token_after_each():
    batch, params = tiny.batch_of(CONFIG), tiny.params(CONFIG)
    for row in range(4):
        length = np.count_nonzero(batch["inputs"][row])
        np.testing.assert_array_equal(batch["targets"][row, : length - 1], batch["inputs"][row, 1:length])
    measured = task_of(CONFIG).measure(CONFIG, build_model(CONFIG.model), params, batch, None)
    logits = tiny.logits(CONFIG, params, batch).astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0] * (batch["targets"] != 0)
    np.testing.assert_allclose(measured["nll"][0], nll.sum(-1), rtol=1e-4)
    np.testing.assert_array_equal(measured["nll"][1], np.count_nonzero(batch["targets"], -1))


def written(batch, output=Continuations(), overrides=None, params=None):  # noqa: B008 - it is frozen
    config = tiny.config({**OF, "data.max_length": 8, "decode.max_extra_length": 50, **(overrides or {})})
    predict = jax.jit(lambda params, batch: output.predict(config, build_model(config.model), params, batch))
    return jax.device_get(predict(tiny.params(config) if params is None else params, batch))


def windows(rows=3, width=8):
    return np.random.default_rng(0).integers(4, 11, (rows, width)).astype(np.int32)


@pytest.mark.parametrize("given", [None, 1, 7])
def test_a_window_is_written_on_with_the_most_probable_token_at_every_place(given):
    inputs, params = windows(), tiny.params(CONFIG)
    found = written({"inputs": jnp.asarray(inputs)}, Continuations(given))["tokens_BNT"][:, 0]
    given = given or 4
    assert found.shape == (3, 8 - given)
    text = inputs[:, :given]
    for place in range(8 - given):
        logits = tiny.logits(CONFIG, params, {"inputs": text})[:, -1]
        best = np.where(np.arange(11) == 0, -np.inf, logits).argmax(-1)
        ended = np.any(found[:, :place] == EOS, axis=1)
        np.testing.assert_array_equal(np.where(ended, 0, best), found[:, place])
        text = np.concatenate([text, best[:, None]], axis=1)


def test_a_window_without_a_whole_beginning_is_not_written_on():
    inputs = windows()
    inputs[1, 3:] = 0
    lengths = written({"inputs": jnp.asarray(inputs)})["lengths_BN"][:, 0]
    assert lengths[1] == 0
    assert lengths[0] > 0 < lengths[2]


def test_no_more_is_written_than_is_asked_for():
    found = written({"inputs": jnp.asarray(windows())}, overrides={"decode.max_extra_length": 2})
    assert found["tokens_BNT"].shape == (3, 1, 2)


def test_hypotheses_of_a_beam_each_write_on_their_own_text():
    """A beam as wide as all pairs of tokens finds the best text of one or two tokens that ends."""
    wide = {"decode.strategy": "beam", "decode.beam_size": 121, "decode.alpha": 5.0, "decode.max_extra_length": 2}
    inputs, params = windows(), tiny.params(CONFIG)
    found = written({"inputs": jnp.asarray(inputs)}, overrides=wide)
    for row in range(3):
        text = np.asarray([[*inputs[row, :4], first] for first in range(1, 11)], np.int32)
        logits = tiny.logits(CONFIG, params, {"inputs": text}).astype(np.float64)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        first, ends = log_probs[0, 3, 1:], log_probs[:, 4, EOS]
        scores = np.where(np.arange(1, 11) == EOS, first, (first + ends) / (7 / 6) ** 5)
        assert found["scores_BN"][row, 0] == pytest.approx(max(scores), rel=1e-4)
    assert len(np.unique(found["tokens_BNT"][:, 0], axis=0)) > 1


def test_samples_are_those_of_their_place_in_the_split():
    overrides = {"decode.strategy": "sample(temperature=5.0)"}
    inputs = np.repeat(windows(1), 3, axis=0)
    places = [np.int32([5, 6, 5]), np.int32([6, 9, 2])]
    first, second = (
        written({"inputs": jnp.asarray(inputs), "example": jnp.asarray(of)}, overrides=overrides)["tokens_BNT"][:, 0]
        for of in places
    )
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], second[0])
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"task.name": "translation"}, ["model.family = 'decoder_only'", "task.name = 'translation'", "transformer"]),
        ({"data.source": "copy"}, ["data.source = 'copy' holds pairs", "learns from text"]),
        ({"evaluate.metrics": ("distinct(n=0)",)}, ["distinct", "n=0"]),
        ({"decode.strategy": "sample(top_p=0)"}, ["top_p"]),
    ],
)
def test_what_cannot_be_learnt_or_judged_is_refused(overrides, words):
    with pytest.raises(UserError) as refused:
        tasks.check(tiny.config({**OF, **overrides}))
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_translator_does_not_learn_from_running_text():
    with pytest.raises(UserError, match="holds text, but task.name = 'translation' learns from pairs"):
        tasks.check(tiny.config({"data.source": "text"}))
