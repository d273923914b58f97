"""The base model of "Attention Is All You Need" (Table 3, row "base"; Section 5): the defaults, on the paper's data.

The sizes are complete; the data are those of `configs/wmt14_en_de.py`, which has what the corpus needs.

    ./launch.sh describe --config=configs/base.py
"""

from configs.rows import ROWS
from transformer_jax.config import ConfigDict, default_config

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """65 M parameters in the paper's count; 63,045,632 with a table of 37,000 rows."""
    config = default_config()
    config.model.vocab_size = 37_000
    return config
