import functools

import history_model as toy
import jax
import numpy as np
import pytest

from transformer_jax.decoding import greedy, sample

BATCH_SIZE, MAX_LENGTH = 24, 5
LIMITS = np.arange(BATCH_SIZE, dtype=np.int32) % (MAX_LENGTH + 3)  # 0 and beyond MAX_LENGTH are among them


@functools.partial(jax.jit, static_argnames=("strategy", "max_length", "on_call", "top_k"))
def decode(tables, strategy=greedy, limits=LIMITS, max_length=MAX_LENGTH, on_call=None, **options):
    return strategy(
        toy.make_logits_fn(tables, on_call=on_call),
        toy.make_cache(tables.shape[0], max_length),
        toy.asked(limits, max_length),
        **options,
    )


def greedy_in_numpy(table, limit):
    tokens, log_prob = (), 0.0
    while len(tokens) < limit and toy.EOS not in tokens:
        log_probs = toy.next_log_probs(table, tokens)
        tokens += (int(np.argmax(log_probs)),)
        log_prob += log_probs[tokens[-1]]
    return tokens, log_prob


def test_greedy_equals_numpy_at_every_limit():
    tables = toy.make_tables(0, BATCH_SIZE, MAX_LENGTH)
    decoded = decode(tables)
    expected = [greedy_in_numpy(t, min(n, MAX_LENGTH)) for t, n in zip(tables, LIMITS, strict=True)]
    assert toy.as_tuples(decoded.tokens_BT, decoded.lengths_B) == [tokens for tokens, _ in expected]
    np.testing.assert_allclose(decoded.log_probs_B, [log_prob for _, log_prob in expected], rtol=1e-5)
    assert {tokens[-1] == toy.EOS for tokens, _ in expected if tokens} == {True, False}  # both ways to stop occur


def test_behind_the_end_stands_padding():
    decoded = decode(toy.make_tables(0, BATCH_SIZE, MAX_LENGTH))
    behind = np.arange(MAX_LENGTH) >= np.asarray(decoded.lengths_B)[:, None]
    assert np.all((np.asarray(decoded.tokens_BT) == toy.PAD) == behind)


@pytest.mark.parametrize("strategy", [greedy, functools.partial(sample, key=jax.random.key(0))])
def test_padding_is_never_predicted(strategy):
    tables = toy.make_tables(1, BATCH_SIZE, MAX_LENGTH)
    tables[..., toy.PAD] = 20.0
    decoded = decode(tables, strategy)
    assert np.array_equal(np.sum(np.asarray(decoded.tokens_BT) != toy.PAD, axis=1), decoded.lengths_B)


def test_stops_when_all_rows_are_done():
    tables = toy.make_tables(2, 8, 6, eos_bias=2.0)
    calls = []
    decoded = decode(tables, limits=np.full(8, 6, np.int32), max_length=6, on_call=lambda: calls.append(1))
    jax.effects_barrier()
    assert len(calls) == max(decoded.lengths_B) < 6


def test_rows_without_a_limit_cost_no_step():
    calls = []
    decoded = decode(toy.make_tables(2, 8, MAX_LENGTH), limits=np.zeros(8, np.int32), on_call=lambda: calls.append(1))
    jax.effects_barrier()
    assert not calls
    assert not np.any(decoded.lengths_B)


def test_vmap_equals_loop():
    lanes = np.stack([toy.make_tables(seed, BATCH_SIZE, MAX_LENGTH) for seed in range(3)])
    together = jax.vmap(decode)(lanes)
    alone = jax.tree.map(lambda *leaves: np.stack(leaves), *[decode(tables) for tables in lanes])
    assert len({tokens.tobytes() for tokens in alone.tokens_BT}) == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), together, alone)


def test_sampling_from_the_best_token_is_greedy():
    tables = toy.make_tables(3, BATCH_SIZE, MAX_LENGTH)
    sampled = decode(tables, sample, key=jax.random.key(1), temperature=3.0, top_k=1)
    jax.tree.map(np.testing.assert_array_equal, sampled, decode(tables))


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, None), (1.0, 2), (1.0, 9)])
def test_sampled_frequencies_are_the_softmax(temperature, top_k):
    num_rows = 20_000
    tables = np.broadcast_to(toy.make_tables(4, 1, 1), (num_rows, toy.VOCAB_SIZE, toy.VOCAB_SIZE))
    decoded = decode(
        tables, sample, np.ones(num_rows, np.int32), 1, key=jax.random.key(2), temperature=temperature, top_k=top_k
    )
    log_probs = toy.next_log_probs(tables[0], ())
    probs = np.exp(log_probs / temperature)
    if top_k:
        probs[np.argsort(probs)[: -min(top_k, toy.VOCAB_SIZE)]] = 0.0
    probs /= probs.sum()
    counts = np.bincount(np.asarray(decoded.tokens_BT)[:, 0], minlength=toy.VOCAB_SIZE)
    np.testing.assert_array_less(np.abs(counts / num_rows - probs), 4 * np.sqrt(probs * (1 - probs) / num_rows) + 1e-9)
    np.testing.assert_allclose(decoded.log_probs_B, log_probs[np.asarray(decoded.tokens_BT)[:, 0]], rtol=1e-5)


@pytest.mark.parametrize(("top_p", "top_k"), [(0.5, None), (0.8, None), (0.8, 3), (1e-6, None)])
def test_a_nucleus_is_the_fewest_tokens_of_that_mass(top_p, top_k):
    num_rows = 4_000
    tables = np.broadcast_to(toy.make_tables(4, 1, 1), (num_rows, toy.VOCAB_SIZE, toy.VOCAB_SIZE))
    limits, key, warm = np.ones(num_rows, np.int32), jax.random.key(2), 1.5
    decoded = decode(tables, sample, limits, 1, key=key, temperature=warm, top_k=top_k, top_p=top_p)
    log_probs = toy.next_log_probs(tables[0], ())
    best = np.argsort(-log_probs)[: top_k or toy.VOCAB_SIZE]
    probs = np.exp(log_probs[best] / warm) / np.exp(log_probs[best] / warm).sum()
    needed = 1 + np.flatnonzero(np.cumsum(probs) >= top_p)[0]
    assert set(np.asarray(decoded.tokens_BT)[:, 0]) == set(best[:needed])
    counts = np.bincount(np.asarray(decoded.tokens_BT)[:, 0], minlength=toy.VOCAB_SIZE)[best[:needed]]
    kept = probs[:needed] / probs[:needed].sum()
    assert np.all(np.abs(counts / num_rows - kept) < 4 * np.sqrt(kept * (1 - kept) / num_rows) + 1e-9)


def test_steps_and_keys_draw_independently():
    num_rows = 4_000
    tables = np.zeros((num_rows, toy.VOCAB_SIZE**2, toy.VOCAB_SIZE), np.float32)
    tables[..., toy.EOS] = -np.inf  # two words with probability 1/2 each
    draw = functools.partial(decode, tables, sample, np.full(num_rows, 2, np.int32), 2)
    first, again, other = (np.asarray(draw(key=jax.random.key(seed)).tokens_BT) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert abs(np.mean(first == other) - 0.5) < 0.05
    assert abs(np.mean(first[:, 0] == first[:, 1]) - 0.5) < 0.05
