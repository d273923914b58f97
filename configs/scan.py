"""SCAN, simple split: commands of 13 words to sequences of six actions (Lake and Baroni 2018).

    ./launch.sh train --config=configs/scan.py --workdir=runs/scan

Expected: 100.0 % exact match on the test half, free-running (4,182 of 4,182; seed 0, `docs/results/scan`); the
validation split is right from step 8,000 on.
"""

from configs.rows import ROWS
from transformer_jax.config import ConfigDict, default_config

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """A small Transformer, greedy decoding, exact match."""
    config = default_config()
    config.data.source = "scan(split='simple')"
    config.data.tokenizer = "words"
    config.data.tokens_per_batch = 2048
    config.data.length_classes = 4
    config.model.d_model = 64
    config.model.num_heads = 4
    config.model.d_ff = 256
    config.model.num_encoder_layers = 2
    config.model.num_decoder_layers = 2
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 500
    config.train.steps = 15_000
    config.train.evaluate_every = 1000
    config.decode.strategy = "greedy"
    config.evaluate.metrics = ("exact_match",)
    return config
