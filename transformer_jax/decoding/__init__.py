"""From next-token logits to tokens: greedy search, beam search, sampling. Knows no model (see `logits`)."""

from transformer_jax.decoding.beam import NBest, beam_search, length_penalty
from transformer_jax.decoding.greedy import greedy
from transformer_jax.decoding.logits import Cache, LogitsFn
from transformer_jax.decoding.sampling import sample
from transformer_jax.decoding.search import Ids, Progress, Search
from transformer_jax.decoding.single import Decoded

__all__ = [
    "Cache",
    "Decoded",
    "Ids",
    "LogitsFn",
    "NBest",
    "Progress",
    "Search",
    "beam_search",
    "greedy",
    "length_penalty",
    "sample",
]
