"""Beam search with the length penalty of Wu et al. (2016), "Google's Neural Machine Translation System", Section 7.

Shapes: B batch, K beam (hypotheses alive), J = 2K candidates, N hypotheses returned, T target, C vocabulary.

What the paper leaves open is settled so:

* |Y| counts EOS, as in tensor2tensor.
* A hypothesis ends if EOS is among the K best continuations of its example (as in fairseq); so a beam of 1 with alpha 0
  is greedy search. The K best unfinished continuations stay alive: the beam does not shrink (tensor2tensor, fairseq).
* The N best ended hypotheses are kept, by score; one gives way only to a better one.
* A hypothesis that the limit cuts off is worse than any that ended: it is returned only where fewer than N ended
  (tensor2tensor: only where none did).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from transformer_jax.decoding.logits import Cache, LogitsFn, best_continuations, take
from transformer_jax.decoding.search import Progress, Search, proceed


class NBest(NamedTuple):
    """The N best hypotheses of each example, best first; those that ended stand before those cut off at the limit.

    tokens_BNT: int32, without BOS; EOS included, unless cut off; PAD behind it.
    scores_BN: float32, log_probs_BN / length_penalty(lengths_BN, alpha).
    log_probs_BN: float32, log p(tokens | input).
    lengths_BN: int32, tokens before the padding, EOS counted.

    A place for which no hypothesis exists (N above what the beam found) is all PAD with length 0 and score -inf.
    """

    tokens_BNT: jax.Array
    scores_BN: jax.Array
    log_probs_BN: jax.Array
    lengths_BN: jax.Array


class Beams(NamedTuple):
    """What a beam search keeps of each example."""

    alive_BKT: jax.Array
    alive_log_probs_BK: jax.Array  # sorted; -inf for a hypothesis that does not exist
    last_BK: jax.Array
    ended: NBest  # sorted; score -inf where the place is free
    done_B: jax.Array


def length_penalty(lengths: jax.Array, alpha: float | jax.Array) -> jax.Array:
    """lp(Y) = ((5 + |Y|) / 6)^alpha, Wu et al. (2016), Equation 14; |Y| counts EOS."""
    return ((5.0 + jnp.asarray(lengths, jnp.float32)) / 6.0) ** alpha


def beam_search(
    logits_fn: LogitsFn,
    cache: Cache,
    search: Search,
    *,
    beam_size: int = 4,
    alpha: float | jax.Array = 0.6,
    num_results: int = 1,
) -> NBest:
    """The `num_results` best hypotheses found by a beam of `beam_size`. For jit and vmap.

    Stops exactly when no hypothesis alive can still replace one of the kept of any example; this never changes the
    result.

    Args:
      logits_fn: see `LogitsFn`; it is given B*K flat hypotheses, hypothesis k of example b at b*K + k.
      cache: its first cache, of B*K hypotheses. What each has of its own is reordered as hypotheses are chosen.
      search: what is asked.
      beam_size: K; may exceed the vocabulary (of at least two tokens).
      alpha: exponent of the length penalty, of any sign; 0 ranks by probability. May be traced.
      num_results: N; may exceed K.

    Raises:
      ValueError: a leaf of the cache that is neither a scalar nor of B*K hypotheses or B examples along axis 0.
    """
    _check_cache(cache, search.batch_size, search.batch_size * beam_size)
    progress = Progress(jnp.int32(0), begin_beams(search, beam_size, num_results), cache)
    return end_beams(proceed_beams(logits_fn, progress, search, alpha).found, search, alpha)


def begin_beams(search: Search, beam_size: int, num_results: int) -> Beams:
    """One empty hypothesis an example; the rest of the beam does not exist yet, else it would hold K times the same."""
    batch_size, max_length, ids = search.batch_size, search.max_length, search.ids
    return Beams(
        alive_BKT=jnp.full((batch_size, beam_size, max_length), ids.pad, jnp.int32),
        alive_log_probs_BK=jnp.full((batch_size, beam_size), -jnp.inf, jnp.float32).at[:, 0].set(0.0),
        last_BK=jnp.full((batch_size, beam_size), ids.bos, jnp.int32),
        ended=NBest(
            tokens_BNT=jnp.full((batch_size, num_results, max_length), ids.pad, jnp.int32),
            scores_BN=jnp.full((batch_size, num_results), -jnp.inf, jnp.float32),
            log_probs_BN=jnp.full((batch_size, num_results), -jnp.inf, jnp.float32),
            lengths_BN=jnp.zeros((batch_size, num_results), jnp.int32),
        ),
        done_B=search.limits_B <= 0,
    )


def proceed_beams(
    logits_fn: LogitsFn,
    progress: Progress,
    search: Search,
    alpha: float | jax.Array,
    until: jax.Array | None = None,
) -> Progress:
    """The search from where it is, till all examples are done or `until` steps were made."""
    limits_B = jnp.minimum(search.limits_B, search.max_length)

    def advance(beams: Beams, cache: Cache, step: jax.Array) -> tuple[Beams, Cache]:
        batch_size, beam_size = beams.last_BK.shape
        logits_NC, cache = logits_fn(beams.last_BK.reshape(-1), cache)
        # Each hypothesis has one continuation by EOS, so that 2K candidates hold K unfinished ones.
        logits_BKC = logits_NC.reshape(batch_size, beam_size, -1)
        best = best_continuations(beams.alive_log_probs_BK, logits_BKC, 2 * beam_size, search.ids.pad)
        beams, parents_BK = _advance(beams, best, step, limits_B, alpha, search.ids.eos)
        return beams, _reorder(cache, parents_BK)

    return proceed(advance, progress, until)


def end_beams(beams: Beams, search: Search, alpha: float | jax.Array) -> NBest:
    """What was found of the examples that are done."""
    return _fill_with_cut_off(beams, jnp.minimum(search.limits_B, search.max_length), alpha)


def _advance(
    beams: Beams,
    best: tuple[jax.Array, jax.Array, jax.Array],
    step: jax.Array,
    limits_B: jax.Array,
    alpha: float | jax.Array,
    eos_id: int,
) -> tuple[Beams, jax.Array]:
    """One token more for the examples not done, and the old hypothesis that each alive one continues, int32[B, K]."""
    beam_size = beams.last_BK.shape[1]
    log_probs_BJ, parents_BJ, tokens_BJ = best
    candidates_BJT = take(beams.alive_BKT, parents_BJ).at[:, :, step].set(tokens_BJ)
    eos_BJ = tokens_BJ == eos_id
    length = step + 1

    ends_BJ = eos_BJ & (jnp.arange(2 * beam_size) < beam_size)
    ended = _merge(beams.ended, candidates_BJT, jnp.where(ends_BJ, log_probs_BJ, -jnp.inf), length, alpha)
    alive_log_probs_BK, chosen_BK = lax.top_k(jnp.where(eos_BJ, -jnp.inf, log_probs_BJ), beam_size)
    best_possible_B = _best_possible(alive_log_probs_BK[:, 0], length, limits_B, alpha)
    new = Beams(
        alive_BKT=take(candidates_BJT, chosen_BK),
        alive_log_probs_BK=alive_log_probs_BK,
        last_BK=take(tokens_BJ, chosen_BK),
        ended=ended,
        done_B=(length >= limits_B) | (best_possible_B <= ended.scores_BN[:, -1]),
    )

    def keep_if_done(old_leaf: jax.Array, new_leaf: jax.Array) -> jax.Array:
        return jnp.where(beams.done_B.reshape(-1, *[1] * (new_leaf.ndim - 1)), old_leaf, new_leaf)

    return jax.tree.map(keep_if_done, beams, new), take(parents_BJ, chosen_BK)


def _merge(
    ended: NBest, tokens_BJT: jax.Array, log_probs_BJ: jax.Array, length: jax.Array, alpha: float | jax.Array
) -> NBest:
    """The N best of the kept hypotheses and the new ones of one common length; of equal ones the kept win."""
    new = NBest(
        tokens_BNT=tokens_BJT,
        scores_BN=log_probs_BJ / length_penalty(length, alpha),
        log_probs_BN=log_probs_BJ,
        lengths_BN=jnp.full(log_probs_BJ.shape, length, jnp.int32),
    )
    both = jax.tree.map(lambda kept, added: jnp.concatenate([kept, added], axis=1), ended, new)
    _, best_BN = lax.top_k(both.scores_BN, ended.scores_BN.shape[1])
    return jax.tree.map(lambda leaf: take(leaf, best_BN), both)


def _best_possible(
    log_probs_B: jax.Array, length: jax.Array, limits_B: jax.Array, alpha: float | jax.Array
) -> jax.Array:
    """Upper bound of the score of any hypothesis that continues one of `length` tokens.

    Its log-probability can only fall. The penalty is monotonic in the length, so it is largest, and the (negative)
    score best, at the limit (alpha >= 0) or one token on (alpha < 0).
    """
    penalty_B = jnp.maximum(length_penalty(limits_B, alpha), length_penalty(length + 1, alpha))
    return log_probs_B / penalty_B


def _fill_with_cut_off(beams: Beams, limits_B: jax.Array, alpha: float | jax.Array) -> NBest:
    """Gives the places that no ended hypothesis took to those still alive."""
    lengths_BK = jnp.broadcast_to(limits_B[:, None], beams.alive_log_probs_BK.shape)
    alive = NBest(
        tokens_BNT=beams.alive_BKT,
        scores_BN=beams.alive_log_probs_BK / length_penalty(lengths_BK, alpha),
        log_probs_BN=beams.alive_log_probs_BK,
        lengths_BN=lengths_BK,
    )
    both = jax.tree.map(lambda first, then: jnp.concatenate([first, then], axis=1), beams.ended, alive)
    missing = jnp.isneginf(both.scores_BN)
    order_BN = jnp.argsort(missing, axis=1, stable=True)[:, : beams.ended.scores_BN.shape[1]]
    return jax.tree.map(lambda leaf: take(leaf, order_BN), both)


def _reorder(cache: Cache, parents_BK: jax.Array) -> Cache:
    """The cache whose hypothesis b*K + k is the old hypothesis b*K + parents[b, k]; what they share stays."""
    batch_size, beam_size = parents_BK.shape

    def reorder(leaf: jax.Array) -> jax.Array:
        if leaf.ndim == 0 or leaf.shape[0] == batch_size:
            return leaf
        return take(leaf.reshape(batch_size, beam_size, *leaf.shape[1:]), parents_BK).reshape(leaf.shape)

    return jax.tree.map(reorder, cache)


def _check_cache(cache: Cache, batch_size: int, num_hypotheses: int) -> None:
    """A leaf that is silently not reordered would mix hypotheses."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(cache):
        shape = jnp.shape(leaf)
        if shape and shape[0] not in (batch_size, num_hypotheses):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"cache{name} has shape {shape}; a leaf is a scalar, [{num_hypotheses}, ...] or [{batch_size}, ...]."
            )
