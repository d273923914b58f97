"""Tiny Shakespeare by characters, the large setting of nanoGPT's example (Karpathy 2022), for a GPU.

    ./launch.sh train --config=configs/shakespeare_large.py --workdir=runs/shakespeare_large

Six layers of six heads, d_model 384, windows of 256 characters, 64 of them a step, 5,000 steps, dropout 0.2, on the
attention weights too; the best of the evaluations counts.

Expected: not measured; published: a validation nll of 1.4697 nats a character.
"""

from configs import shakespeare
from configs.rows import ROWS
from transformer_jax.config import ConfigDict

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """`configs/shakespeare.py`, wider, deeper, longer and with dropout."""
    config = shakespeare.get_config()
    config.data.max_length = 256
    config.data.tokens_per_batch = 64 * 256
    config.model.num_layers = 6
    config.model.num_heads = 6
    config.model.d_model = 384
    config.model.d_ff = 1536
    config.model.dropout_rate = 0.2
    config.model.attention.dropout_rate = 0.2
    config.model.positions = "learned(max_length=256)"
    config.train.steps = 5000
    config.evaluate.checkpoint = "best"
    return config
