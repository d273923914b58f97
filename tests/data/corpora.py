"""The text of a source of pairs."""

from transformer_jax.config import DataConfig
from transformer_jax.data import Corpus, make_source


def make_corpus(config: DataConfig) -> Corpus:
    return make_source(config).corpus(config)
