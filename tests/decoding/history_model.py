"""A toy model whose next logits depend on every token before, known only through its cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.decoding import Ids, Search

PAD, BOS, EOS = 0, 2, 3
IDS = Ids(bos=BOS, eos=EOS, pad=PAD)
VOCAB_SIZE = 4  # PAD, a word, BOS (a second word, where predicted), EOS
NUM_LAYERS = 2


def make_tables(seed: int, batch_size: int, max_length: int, eos_bias: float = 0.0) -> np.ndarray:
    """float32[B, number of histories, C]: for each row and history the logits of the next token."""
    shape = (batch_size, VOCAB_SIZE**max_length, VOCAB_SIZE)
    tables = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    tables[..., EOS] += eos_bias
    return tables


def asked(limits, max_length: int) -> Search:
    """What every search is asked here."""
    return Search(jnp.asarray(limits), max_length, IDS)


def make_cache(num_rows: int, max_length: int) -> dict[str, jax.Array]:
    return {"history": jnp.zeros((num_rows, NUM_LAYERS, max_length), jnp.int32), "step": jnp.int32(0)}


def make_logits_fn(tables: jax.Array, beam_size: int = 1, on_call: Callable[[], None] | None = None):
    """The `LogitsFn` of B*K rows; `on_call` runs on the host at each step."""
    tables = jnp.repeat(jnp.asarray(tables), beam_size, axis=0)

    def logits_fn(tokens, cache):
        if on_call is not None:
            jax.debug.callback(on_call)
        history = cache["history"].at[:, :, cache["step"]].set(tokens[:, None])
        # Each layer holds half of what is needed.
        digits = jnp.where(jnp.arange(history.shape[-1]) % 2 == 0, history[:, 0], history[:, 1])
        code = jnp.sum(digits * VOCAB_SIZE ** jnp.arange(history.shape[-1]), axis=-1)
        return tables[jnp.arange(tables.shape[0]), code], {"history": history, "step": cache["step"] + 1}

    return logits_fn


def next_log_probs(table: np.ndarray, prefix: tuple[int, ...]) -> np.ndarray:
    """The same for one row in NumPy: float64[C], given the tokens after BOS; PAD excluded."""
    code = sum(token * VOCAB_SIZE**i for i, token in enumerate((BOS, *prefix)))
    logits = table[code].astype(np.float64)
    log_probs = logits - np.log(np.sum(np.exp(logits)))
    log_probs[PAD] = -np.inf
    return log_probs


def as_tuples(tokens_NT, lengths_N) -> list[tuple[int, ...]]:
    return [tuple(int(t) for t in row[:n]) for row, n in zip(np.asarray(tokens_NT), np.asarray(lengths_N), strict=True)]
