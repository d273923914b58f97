"""Attention or convolution for images, and how does attention know where a patch stands?

    ./launch.sh sweep experiments/attention_or_convolution.py --workdir=runs/attention_or_convolution
    ./launch.sh sweep experiments/attention_or_convolution.py --scale=full --workdir=runs/attention_or_convolution_mnist

The base is a small Vision Transformer with a class token and learned positions; in the rows `convolution` and
`convolution_positions_none` a convolution of 3 x 3 patches stands in the place of self-attention, and the feed-forward
network is as much wider as makes up for its parameters. The scale `small` trains on scikit-learn's digits (the extra
`digits`), `full` on MNIST.

Question: With all else equal, does an image need self-attention, or is a convolution over its patches enough; and what
do positions and the class token add?

Hypothesis: From few images the convolution learns more, as it begins with the neighbourhood that attention has to find
(Dosovitskiy et al. 2021, Section 4.3); without positions attention sees a bag of patches and is clearly worse, while
learned and two-dimensional ones are alike, as are class token and mean.

Answer: not measured.
"""

from typing import Any

from transformer_jax.config import Config
from transformer_jax.sweeps.experiment import Experiment, Scale

KERNEL = 3
MEAN = {"model.pooling": "mean"}
POSITIONS = "model.positions"


def convolution(base: Config) -> dict[str, Any]:
    """The parameters of attention that a convolution of each channel does not need are spent on d_ff."""
    model = base.model
    d_k, d_v = model.head_widths
    attention = 2 * model.d_model * model.num_heads * (d_k + d_v)
    saved = attention - (KERNEL**2 + 1) * model.d_model
    d_ff = model.d_ff + round(saved / (2 * model.d_model + 1))
    return {**MEAN, "model.mixing": f"convolution(kernel={KERNEL})", "model.d_ff": d_ff}


def without_positions(base: Config) -> dict[str, Any]:
    """The same, in which the edge of the image alone tells where a patch stands."""
    return {**convolution(base), POSITIONS: "none"}


ROWS = {
    "base": {},
    "mean": MEAN,
    "convolution": convolution,
    "convolution_positions_none": without_positions,
    "positions_none": {POSITIONS: "none"},
    "positions_sinusoidal_2d": {POSITIONS: "sinusoidal_2d"},
}
METRIC = {"metric": "test/accuracy", "percent": True}
DIGITS = {
    "data.source": "digits",
    "data.directory": None,
    "data.tokens_per_batch": 64,
    "model.patch_size": 2,
    "model.num_layers": 3,
    "model.d_model": 32,
    "model.d_ff": 64,
    "task.shift": 0,
    "optimizer.warmup_steps": 50,
    "train.steps": 1000,
    "train.evaluate_every": 250,
}
SMOKE = {"optimizer.warmup_steps": 2, "train.steps": 10, "train.evaluate_every": 10}

EXPERIMENT = Experiment(
    rows=ROWS,
    partners={"convolution": "mean"},
    curve="valid/accuracy",
    scales={
        "smoke": Scale("configs/mnist.py", seeds=1, overrides={**DIGITS, **SMOKE}, **METRIC),
        "small": Scale("configs/mnist.py", seeds=3, overrides=DIGITS, **METRIC),
        "full": Scale("configs/mnist.py", seeds=3, **METRIC),
    },
)
