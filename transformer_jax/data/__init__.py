"""Sources, tokenizers and batch plans: `config.data` to arrays."""

from transformer_jax.data.corpus import Corpus, TextSplit
from transformer_jax.data.dataset import Dataset
from transformer_jax.data.examples import Column, Examples
from transformer_jax.data.pairs import encode_pairs
from transformer_jax.data.plan import Batch, Plan, Shape, evaluation_batches, make_plan
from transformer_jax.data.sources import SOURCES, check, check_there, make_dataset, make_source
from transformer_jax.data.tokenizer import Tokenizer
from transformer_jax.data.tokenizers import TOKENIZERS, TokenizerPair
from transformer_jax.vocabulary import BOS, EOS, NUM_SPECIALS, PAD, UNK

__all__ = [
    "BOS",
    "EOS",
    "NUM_SPECIALS",
    "PAD",
    "SOURCES",
    "TOKENIZERS",
    "UNK",
    "Batch",
    "Column",
    "Corpus",
    "Dataset",
    "Examples",
    "Plan",
    "Shape",
    "TextSplit",
    "Tokenizer",
    "TokenizerPair",
    "check",
    "check_there",
    "encode_pairs",
    "evaluation_batches",
    "make_dataset",
    "make_plan",
    "make_source",
]
