"""What every search for tokens is asked, whatever its strategy. B examples."""

from typing import NamedTuple

import jax


class Ids(NamedTuple):
    """The special ids.

    bos: the first input of the decoder. eos: ends a hypothesis. pad: fills the output; never predicted.
    """

    bos: int
    eos: int
    pad: int


class Search(NamedTuple):
    """The outputs to be found.

    limits_B: int32, the most tokens each output may have, EOS counted (the paper: input + 50); 0: none.
    max_length: T, the static length of the outputs; no limit reaches beyond it.
    ids: the special ids.
    """

    limits_B: jax.Array
    max_length: int
    ids: Ids

    @property
    def batch_size(self) -> int:
        """B."""
        return self.limits_B.shape[0]
