"""The special ids. Every vocabulary begins with them, and this is the only place that says which they are."""

PAD = 0  # fills rows up to their width; never predicted, never counted
UNK = 1  # a word or character that is not in the vocabulary
BOS = 2  # what the decoder reads before the first target token
EOS = 3  # ends every source and every target
NUM_SPECIALS = 4

# Two more, of models that need them, stand behind all tokens, so that no tokenizer's ids shift: the last ids of the
# model's table.
NUM_AFTER = 2


def mask_token(vocab_size: int) -> int:
    """MASK stands where a token was hidden."""
    return vocab_size - 2


def class_token(vocab_size: int) -> int:
    """CLS stands before all others and has no meaning but that of the whole."""
    return vocab_size - 1
