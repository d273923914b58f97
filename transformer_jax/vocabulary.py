"""The special ids. Every vocabulary begins with them, and this is the only place that says which they are."""

PAD = 0  # fills rows up to their width; never predicted, never counted
UNK = 1  # a word or character that is not in the vocabulary
BOS = 2  # what the decoder reads before the first target token
EOS = 3  # ends every source and every target
NUM_SPECIALS = 4
