"""MNIST by a Vision Transformer (Dosovitskiy et al. 2021).

    ./launch.sh train --config=configs/mnist.py --workdir=runs/mnist

Six layers of four heads, d_model 64, patches of 7 x 7 pixels, 128 images a step, 8,000 steps, images moved by up to two
pixels.

Expected: not measured; published for a model of this size (patches of 4 x 4, 100 epochs): 99.5 % of the test images.
"""

from configs.rows import ROWS
from transformer_jax.config import ConfigDict, default_config

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """ViT's choices (pre-norm, GELU, learned positions, class token) in a size for one core."""
    config = default_config("vision", "classification")
    config.data.source = "mnist(valid=10000)"
    config.data.directory = "mnist"
    config.data.batch_multiple = 8
    config.data.tokens_per_batch = 128
    config.model.patch_size = 7
    config.model.num_layers = 6
    config.model.num_heads = 4
    config.model.d_model = 64
    config.model.d_ff = 128
    config.model.dropout_rate = 0.0
    config.model.positions = "learned(max_length=17)"
    config.model.feed_forward = "gelu"
    config.model.residual = "pre_norm"
    config.optimizer.name = "adamw"
    config.optimizer.schedule = "cosine(final=0.01)"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 200
    config.optimizer.beta_2 = 0.999
    config.optimizer.epsilon = 1e-8
    config.optimizer.weight_decay = 0.05
    config.task.shift = 2
    config.train.label_smoothing = 0.1
    config.train.steps = 8000
    config.train.evaluate_every = 1000
    config.evaluate.metrics = ("macro_f1",)
    return config
