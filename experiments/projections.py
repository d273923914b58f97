"""Are W_Q, W_K and W_V all needed, and are they best linear?

    ./launch.sh sweep experiments/projections.py --workdir=runs/projections

Question: Why rotate K if Q is rotated? Why not softmax(Q V^T) V? Why linear?

Hypothesis: W_Q and W_K act as one product, so one of them can go; a shared W_K and W_V costs something; a hidden
layer buys little for its parameters.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "no_wq",
            "no_wk",
            "no_wv",
            "no_projections",
            "shared_wq_wk",
            "shared_wk_wv",
            "shared_wq_wk_wv",
            "hidden_projections",
        ],
    ),
    scales=SCALES,
)
