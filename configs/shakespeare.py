"""Tiny Shakespeare by characters, the small setting of nanoGPT's CPU example (Karpathy 2022).

    ./launch.sh train --config=configs/shakespeare.py --workdir=runs/shakespeare
    ./launch.sh generate --workdir=runs/shakespeare --prompt="ROMEO:"

Four layers of four heads, d_model 128, windows of 64 characters, 12 of them a step, 2,000 steps, no dropout.

Expected: a validation nll of 1.81 nats a character (seed 0, 4 min 18 s on busy cores, `docs/results/shakespeare`);
published: 1.88.
"""

from configs.rows import ROWS
from transformer_jax.config import ConfigDict, default_config

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """GPT-2's choices (pre-norm, GELU, learned positions, tied embeddings, no W biases) in that size."""
    config = default_config("decoder_only", "language_modelling")
    config.data.source = "text(file='input.txt', valid=0.1)"
    config.data.directory = "tinyshakespeare"
    config.data.tokenizer = "characters"
    config.data.max_length = 64
    config.data.batch_multiple = 4
    config.data.tokens_per_batch = 12 * 64
    config.model.num_layers = 4
    config.model.num_heads = 4
    config.model.d_model = 128
    config.model.d_ff = 512
    config.model.dropout_rate = 0.0
    config.model.positions = "learned(max_length=64)"
    config.model.feed_forward = "gelu"
    config.model.residual = "pre_norm"
    config.model.embedding.scale = "one"
    config.optimizer.name = "adamw"
    config.optimizer.schedule = "cosine(final=0.1)"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.beta_2 = 0.99
    config.optimizer.epsilon = 1e-8
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.train.label_smoothing = 0.0
    config.train.steps = 2000
    config.train.evaluate_every = 250
    config.decode.strategy = "sample(temperature=0.8, top_k=200)"
    config.evaluate.metrics = ("unrepeated", "distinct")
    return config
