"""Made-up sentences, from which parameters are initialised and on which models can be tried. B sentences."""

from collections.abc import Sequence

import numpy as np

from transformer_jax.data.ragged import Int32Array
from transformer_jax.vocabulary import EOS, NUM_SPECIALS, PAD


def made_up_sentences(lengths: Sequence[int], width: int, vocab_size: int, seed: int) -> Int32Array:
    """int32[B, width]: sentences of so many random tokens, EOS the last of them, and PAD behind."""
    tokens = np.random.default_rng(seed).integers(NUM_SPECIALS, vocab_size, (len(lengths), width))
    columns, ends = np.arange(width), np.asarray(lengths)[:, None]
    tokens = np.where(columns == ends - 1, EOS, tokens)
    return np.where(columns < ends, tokens, PAD).astype(np.int32)
