import functools
import itertools

import history_model as toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.decoding import beam_search, greedy, length_penalty
from transformer_jax.decoding.logits import best_continuations, next_token_log_probs

MAX_LENGTH = 5
ALPHAS = np.array([0.0, 0.6, 1.0, -0.5, 3.0, -3.0], np.float32)


@functools.partial(jax.jit, static_argnames=("max_length", "beam_size", "num_results", "on_call"))
def search(tables, limits, *, max_length=MAX_LENGTH, beam_size=4, on_call=None, **options):
    batch_size = tables.shape[0]
    return beam_search(
        toy.make_logits_fn(tables, beam_size, on_call),
        toy.make_cache(batch_size * beam_size, max_length),
        toy.asked(limits, max_length),
        beam_size=beam_size,
        **options,
    )


def penalty_in_numpy(length, alpha):
    return ((5 + length) / 6) ** float(alpha)


def score_in_numpy(hypothesis, alpha):
    log_prob, tokens = hypothesis
    return log_prob / penalty_in_numpy(len(tokens), alpha)


def rank(ended, cut_off, alpha):
    score = functools.partial(score_in_numpy, alpha=alpha)
    return sorted(ended, key=score, reverse=True) + sorted(cut_off, key=score, reverse=True)


def beam_in_numpy(table, limit, beam_size):
    """What is alive and what has ended before the first step and after each, always up to the limit."""
    alive, ended = [(0.0, ())], []
    yield alive, ended
    for _ in range(limit):
        continued = [
            (log_prob + step_log_prob, (*tokens, token))
            for log_prob, tokens in alive
            for token, step_log_prob in enumerate(toy.next_log_probs(table, tokens))
            if np.isfinite(step_log_prob)
        ]
        continued.sort(reverse=True)
        ended = ended + [hypothesis for hypothesis in continued[:beam_size] if hypothesis[1][-1] == toy.EOS]
        alive = [hypothesis for hypothesis in continued if hypothesis[1][-1] != toy.EOS][:beam_size]
        yield alive, ended


def steps_needed(table, limit, beam_size, alpha, num_results):
    """The first step after which nothing alive, at any length it may reach, beats the worst of the kept."""
    for step, (alive, ended) in enumerate(beam_in_numpy(table, limit, beam_size)):
        kept = rank(ended, [], alpha)[:num_results]
        reachable = [alive[0][0] / penalty_in_numpy(length, alpha) for length in range(step + 1, limit + 1)]
        if len(kept) == num_results and max(reachable, default=-np.inf) <= score_in_numpy(kept[-1], alpha):
            return step
    return limit


def all_hypotheses(table, limit):
    """Every sequence over the vocabulary that ends by the limit, and every one that is cut off there."""
    words = [token for token in range(toy.VOCAB_SIZE) if token not in (toy.PAD, toy.EOS)]

    def with_log_prob(tokens):
        return sum(toy.next_log_probs(table, tokens[:i])[token] for i, token in enumerate(tokens)), tokens

    ended = [(*prefix, toy.EOS) for n in range(limit) for prefix in itertools.product(words, repeat=n)]
    cut_off = list(itertools.product(words, repeat=limit))
    return [with_log_prob(tokens) for tokens in ended], [with_log_prob(tokens) for tokens in cut_off]


def assert_results_equal(results, place, expected, alpha):
    """`place` is the index of lane and row."""
    tokens_NT, scores_N, log_probs_N, lengths_N = (np.asarray(leaf)[place] for leaf in results)
    found = toy.as_tuples(tokens_NT, lengths_N)
    missing = len(found) - len(expected)
    assert found == [tokens for _, tokens in expected] + [()] * missing
    log_probs = [log_prob for log_prob, _ in expected] + [-np.inf] * missing
    scores = [score_in_numpy(hypothesis, alpha) for hypothesis in expected] + [-np.inf] * missing
    np.testing.assert_allclose(log_probs_N, log_probs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores_N, scores, rtol=1e-5, atol=1e-6)


def test_beam_of_one_without_penalty_is_greedy():
    tables = toy.make_tables(0, 64, MAX_LENGTH)
    limits = np.arange(64, dtype=np.int32) % (MAX_LENGTH + 1)
    results = search(tables, limits, beam_size=1, alpha=0.0)
    decoded = greedy(
        toy.make_logits_fn(tables),
        toy.make_cache(64, MAX_LENGTH),
        toy.asked(limits, MAX_LENGTH),
    )
    np.testing.assert_array_equal(results.tokens_BNT[:, 0], decoded.tokens_BT)
    np.testing.assert_array_equal(results.lengths_BN[:, 0], decoded.lengths_B)
    np.testing.assert_array_equal(results.log_probs_BN[:, 0], decoded.log_probs_B)


def test_beam_as_wide_as_the_space_is_exhaustive_search():
    """The whole n-best list, for all alphas (traced, one lane each) and all limits."""
    max_length, batch_size = 4, 15
    tables = toy.make_tables(1, batch_size, max_length)
    limits = np.arange(batch_size, dtype=np.int32) % (max_length + 1)
    whole = functools.partial(search, tables, limits, max_length=max_length, beam_size=24, num_results=33)
    results = jax.vmap(lambda alpha: whole(alpha=alpha))(ALPHAS)
    orders = set()
    for lane, alpha in enumerate(ALPHAS):
        for row in range(batch_size):
            expected = rank(*all_hypotheses(tables[row], limits[row]), alpha)
            assert_results_equal(results, (lane, row), expected, alpha)
            orders.add((row, tuple(tokens for _, tokens in expected)))
    assert len(orders) > 2 * batch_size  # alpha matters


@pytest.mark.parametrize(("beam_size", "num_results"), [(1, 1), (2, 1), (2, 3), (3, 3), (7, 2)])
def test_narrow_beam_equals_numpy_without_early_exit(beam_size, num_results):
    batch_size = 24
    tables = toy.make_tables(2, batch_size, MAX_LENGTH, eos_bias=0.5)
    limits = np.arange(batch_size, dtype=np.int32) % (MAX_LENGTH + 1)
    narrow = functools.partial(search, tables, limits, beam_size=beam_size, num_results=num_results)
    results = jax.vmap(lambda alpha: narrow(alpha=alpha))(ALPHAS)
    for lane, alpha in enumerate(ALPHAS):
        for row, limit in enumerate(limits):
            alive, ended = list(beam_in_numpy(tables[row], limit, beam_size))[-1]
            expected = rank(ended, alive, alpha)[:num_results]
            assert_results_equal(results, (lane, row), expected, alpha)


@pytest.mark.parametrize("num_results", [1, 2])
def test_stops_exactly_when_nothing_can_improve(num_results):
    calls = []
    count = functools.partial(calls.append, 1)
    limits = np.array([6], np.int32)
    for alpha in ALPHAS:
        needed = []
        for seed in range(24):
            table = toy.make_tables(seed, 1, 6, eos_bias=float(seed % 3))
            calls.clear()
            search(table, limits, max_length=6, beam_size=2, num_results=num_results, alpha=alpha, on_call=count)
            jax.effects_barrier()
            needed.append(steps_needed(table[0], 6, 2, alpha, num_results))
            assert len(calls) == needed[-1], (alpha, seed)
        assert min(needed) < 6
        assert len(set(needed)) > 1


def test_a_batch_runs_as_long_as_its_slowest_row_and_rows_do_not_mix():
    tables = toy.make_tables(5, 12, MAX_LENGTH, eos_bias=0.5)
    limits = np.full(12, MAX_LENGTH, np.int32)
    together = search(tables, limits, beam_size=2)
    alone = [search(tables[i : i + 1], limits[:1], beam_size=2) for i in range(12)]
    assert len({steps_needed(table, MAX_LENGTH, 2, 0.6, 1) for table in tables}) > 1
    alone = jax.tree.map(lambda *leaves: np.concatenate(leaves), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), together, alone)


def test_rows_of_limit_zero_cost_no_step_and_stay_empty():
    calls = []
    results = search(toy.make_tables(6, 3, MAX_LENGTH), np.zeros(3, np.int32), on_call=lambda: calls.append(1))
    jax.effects_barrier()
    assert not calls
    assert not np.any(results.lengths_BN)
    assert np.all(np.asarray(results.tokens_BNT) == toy.PAD)


def test_a_model_sure_of_one_sentence_finds_that_and_stops():
    tables = np.full((1, toy.VOCAB_SIZE**MAX_LENGTH, toy.VOCAB_SIZE), -np.inf, np.float32)
    tables[..., toy.EOS] = 0.0
    calls = []
    results = search(tables, np.array([MAX_LENGTH], np.int32), num_results=2, on_call=lambda: calls.append(1))
    jax.effects_barrier()
    assert len(calls) == 1
    assert toy.as_tuples(results.tokens_BNT[0], results.lengths_BN[0]) == [(toy.EOS,), ()]
    np.testing.assert_array_equal(results.log_probs_BN[0], [0.0, -np.inf])


def test_n_best_is_sorted_distinct_and_padded():
    tables = toy.make_tables(7, 16, MAX_LENGTH, eos_bias=1.0)
    results = search(tables, np.full(16, MAX_LENGTH, np.int32), beam_size=4, num_results=4)
    scores = np.asarray(results.scores_BN)
    assert np.all(np.isfinite(scores))
    for row in range(16):
        hypotheses = toy.as_tuples(results.tokens_BNT[row], results.lengths_BN[row])
        assert len(set(hypotheses)) == 4
        ended = np.array([hypothesis[-1] == toy.EOS for hypothesis in hypotheses])
        assert np.all(ended[:-1] >= ended[1:])
        assert np.all(np.diff(scores[row][ended]) <= 0)
    behind = np.arange(MAX_LENGTH) >= np.asarray(results.lengths_BN)[:, :, None]
    assert np.all((np.asarray(results.tokens_BNT) == toy.PAD) == behind)


def test_vmap_equals_loop():
    lanes = np.stack([toy.make_tables(seed, 6, MAX_LENGTH, eos_bias=0.5) for seed in range(3)])
    limits = np.array([0, 2, 5, 5, 5, 1], np.int32)
    together = jax.vmap(search, in_axes=(0, None))(lanes, limits)
    alone = jax.tree.map(lambda *leaves: np.stack(leaves), *[search(tables, limits) for tables in lanes])
    assert len({tokens.tobytes() for tokens in alone.tokens_BNT}) == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), together, alone)


def test_length_penalty_is_that_of_wu_et_al():
    np.testing.assert_allclose(length_penalty(jnp.array([1, 7, 20]), 0.6), [1.0, 2**0.6, (25 / 6) ** 0.6], rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (1, 8, 3)])
def test_a_cache_that_cannot_be_reordered_is_refused(shape):
    with pytest.raises(ValueError, match=r"cache\['key'\].*\[8, \.\.\.\] or \[2, "):
        beam_search(
            toy.make_logits_fn(toy.make_tables(0, 2, MAX_LENGTH), 4),
            {"key": jnp.zeros(shape)},
            toy.asked([1, 1], MAX_LENGTH),
        )


@pytest.mark.parametrize("vocab_size", [9, 40, 1000, 1024])
def test_the_best_continuations_are_found_among_many(vocab_size):
    """In blocks, where they are enough: side by side in one or spread over all, of one hypothesis or of several; PAD is
    never among them."""
    ordered = np.tile(np.linspace(-9, 9, vocab_size, dtype=np.float32), (50, 4, 1))
    logits = np.random.default_rng(0).permuted(ordered, axis=2)
    logits[0].sort()
    logits[:, :, toy.PAD] = 20.0
    so_far = np.random.default_rng(1).normal(-5, 3, (50, 4)).astype(np.float32)
    so_far[1, 1:] = -np.inf
    log_probs, parents, tokens = best_continuations(jnp.asarray(so_far), jnp.asarray(logits), 7, toy.PAD)
    every = so_far[:, :, None] + np.asarray(next_token_log_probs(jnp.asarray(logits), toy.PAD))
    ordered = np.argsort(-every.reshape(50, -1), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(parents * vocab_size + tokens, ordered)
    np.testing.assert_allclose(log_probs, np.take_along_axis(every.reshape(50, -1), ordered, 1), rtol=1e-5)
    assert len(np.unique(np.asarray(parents)[2:])) == 4
