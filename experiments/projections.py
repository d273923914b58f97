"""Are W_Q, W_K and W_V all needed, and are they best linear?

    ./launch.sh sweep experiments/projections.py --workdir=runs/projections

Question: Why rotate K if Q is rotated? Why not softmax(Q V^T) V? Why linear?

Hypothesis: W_Q and W_K act as one product, so one of them can go; a shared W_K and W_V costs something; a hidden
layer buys little for its parameters.

Answer: in 1,000 steps on short commands of SCAN W_K cannot go: without it 58.5 ± 11.6 % exact match instead of 82.9
± 2.6 (by 24.4 ± 12.2 points, p = 0.031 after Holm's correction). Without W_Q (-13.5 ± 10.3) or W_V (-13.5 ± 8.6),
with W_Q = W_K (-11.2 ± 7.8) or W_K = W_V, softmax(Q V^T) V, (-26.4 ± 23.7) each p is below 0.05 alone and none
after the correction (0.061 to 0.073). One matrix for all three (25.2 ± 10.9 %) or none at all (17.2 ± 5.7 %) is
much worse (p < 0.001). A hidden layer in each buys nothing that is seen (+0.6 ± 9.0) for a third more parameters.
The rows with fewer matrices are smaller models too, by 10 to 31 %. (Scale small, seeds 0 to 4, commits 9e0bdb04d722
and, of the base and W_V, 422224c3a595, `docs/results/projections`.)
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
