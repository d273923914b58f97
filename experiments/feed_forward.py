"""What is the feed-forward network for?

    ./launch.sh sweep experiments/feed_forward.py --workdir=runs/feed_forward

Question: What does the feed-forward network bring, and what its non-linearity?

Hypothesis: Without it, or without its non-linearity, the model is worse; the kind of non-linearity hardly matters.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "ffn_gelu", "ffn_linear", "ffn_swiglu", "ffn_geglu", "ffn_none"]),
    scales=SCALES,
)
