"""Why 1 / sqrt(d_k)?

    ./launch.sh sweep experiments/scaling_factor.py --workdir=runs/scaling_factor

Question: Does the factor 1 / sqrt(d_k) before the softmax matter, and more so as d_k grows?

Hypothesis: At small d_k it hardly matters; without it the softmax saturates as d_k grows (Section 3.2.1).

Answer: not measured yet.
"""

from configs.rows import PARTNERS, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "scale_none", "scale_inv_d_k", "scale_learned", "wide_heads", "wide_heads_scale_none"]),
    partners=PARTNERS,
    scales=SCALES,
)
