"""Sources, tokenizers and batch plans: `config.data` to arrays of ids."""

from transformer_jax.data.corpus import Corpus, TextSplit
from transformer_jax.data.dataset import Dataset, EncodedSplit, check, encode_pairs, make_dataset
from transformer_jax.data.plan import Batch, Plan, Shape, evaluation_batches, make_plan
from transformer_jax.data.sources import SOURCES, make_corpus
from transformer_jax.data.tokenizer import Tokenizer
from transformer_jax.data.tokenizers import TOKENIZERS, TokenizerPair
from transformer_jax.data.vocabulary import BOS, EOS, NUM_SPECIALS, PAD, UNK

__all__ = [
    "BOS",
    "EOS",
    "NUM_SPECIALS",
    "PAD",
    "SOURCES",
    "TOKENIZERS",
    "UNK",
    "Batch",
    "Corpus",
    "Dataset",
    "EncodedSplit",
    "Plan",
    "Shape",
    "TextSplit",
    "Tokenizer",
    "TokenizerPair",
    "check",
    "encode_pairs",
    "evaluation_batches",
    "make_corpus",
    "make_dataset",
    "make_plan",
]
