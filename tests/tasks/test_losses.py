"""Section 5.4: the loss, as a sum and a count."""

import dataclasses
import functools

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.models.tokens import Tokens, shift_right
from transformer_jax.tasks.losses import all_correct, smoothed_cross_entropy
from transformer_jax.training.state import Lane, init_state
from transformer_jax.training.step import build_step
from transformer_jax.vocabulary import BOS, PAD

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_spreads_the_mass_over_all_classes(smoothing):
    logits = RNG.normal(size=(2, 3, 7)).astype(np.float32)
    targets = np.int32([[1, 6, 0], [2, 2, 5]])
    loss, nll = smoothed_cross_entropy(logits, targets, smoothing)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(7)[targets] + smoothing / 7
    np.testing.assert_allclose(loss, -(wanted * log_probs).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(nll, -(np.eye(7)[targets] * log_probs).sum(-1), rtol=1e-5)


def test_the_decoder_is_fed_the_token_before_and_bos_at_the_start_of_each_sentence():
    targets, positions = np.int32([[5, 6, 3, 7, 3, 0]]), np.int32([[0, 1, 2, 0, 1, 0]])
    packed, alone = np.int32([[1, 1, 1, 2, 2, 0]]), np.int32([[1, 1, 1, 1, 1, 0]])
    assert shift_right(Tokens(targets, positions, packed)).ids.tolist() == [[BOS, 5, 6, BOS, 7, PAD]]
    assert shift_right(Tokens(targets, np.arange(6)[None], alone)).ids.tolist() == [[BOS, 5, 6, 3, 7, PAD]]


@functools.cache
def compiled_sums(config):
    """(params, batch) -> the gradient of the loss sum; sums and counts of all that is measured."""

    def sums(params, batch):
        totals = tiny.totals(config, params, batch)
        return totals["loss"][0], totals

    return jax.jit(jax.grad(sums, has_aux=True))


def test_halves_of_a_batch_add_up_to_the_whole():
    """The examples of the batch are of unlike length; empty ones fill up the halves."""
    config = tiny.config()
    params, whole = tiny.params(config), tiny.batch()
    first = np.arange(4)[:, None] < 1
    halves = [{side: np.where(own, tokens, PAD) for side, tokens in whole.items()} for own in (first, ~first)]
    *parts, expected = [compiled_sums(config)(params, batch) for batch in (*halves, whole)]
    counts = [int(totals["loss"][1]) for _, totals in (*parts, expected)]
    assert counts[0] != counts[1]
    assert counts[2] == (whole["targets"] != PAD).sum()
    added = jax.tree.map(jnp.add, *parts)
    for (path, found), value in zip(jax.tree_util.tree_leaves_with_path(added), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5, err_msg=str(path))


def test_the_sums_are_those_of_the_logits():
    config = tiny.config()
    params, batch = tiny.params(config), tiny.batch()
    with jax.disable_jit():
        measured = tiny.totals(config, params, jax.tree.map(jnp.asarray, batch))
    total, count = measured["loss"]
    logits, targets = tiny.logits(config, params, batch), batch["targets"]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    real = targets != PAD
    nll = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0][real].sum()
    smooth = -log_probs.mean(-1)[real].sum()
    correct = (logits.argmax(-1) == targets)[real].sum()
    assert float(total) == pytest.approx(0.9 * nll + 0.1 * smooth, rel=1e-5)
    assert [float(x) for x in measured["nll"]] == pytest.approx([nll, real.sum()], rel=1e-5)
    assert [float(x) for x in measured["token_accuracy"]] == [correct, real.sum()]
    assert float(count) == real.sum()


SGD = {"optimizer.name": "sgd", "optimizer.schedule": "constant", "optimizer.learning_rate": 64.0}


def test_the_gradient_of_a_step_is_that_of_the_mean_over_tokens():
    """Not of the mean over rows of their means: the rows are of very unlike length."""
    config = tiny.config({"model.dropout_rate": 0.0, "train.label_smoothing": 0.2, **SGD})
    params, batch = tiny.params(config), jax.tree.map(jnp.asarray, tiny.batch())
    real = batch["targets"] != PAD
    before = jnp.where(real, jnp.pad(batch["targets"][:, :-1], [(0, 0), (1, 0)], constant_values=BOS), PAD)

    def mean(params):
        log_probs = jax.nn.log_softmax(inside.logits(config, params, batch["inputs"], before))
        nll = -jnp.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0]
        return jnp.sum(real * (0.8 * nll - 0.2 * log_probs.mean(-1))) / real.sum()

    lane = Lane(np.int32(0), {})
    state = dataclasses.replace(init_state(config, lane), params=params)
    after, _ = jax.jit(build_step(config))(state, batch, lane)
    gradient = jax.tree.map(lambda a, b: (a - b) / 64, params, after.params)
    expected = jax.jit(jax.grad(mean))(params)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-6, err_msg=str(path))


def test_an_example_is_right_where_all_of_its_tokens_are_and_counts_where_it_has_any():
    measured = {"token_accuracy": (jnp.float32([2, 3, 0, 5]), jnp.float32([2, 4, 0, 5]))}
    found = [values.tolist() for values in all_correct(measured)]
    assert found == [[1, 0, 0, 1], [1, 1, 0, 1]]
