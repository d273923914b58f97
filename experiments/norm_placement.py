"""Where should the normalisation stand?

    ./launch.sh sweep experiments/norm_placement.py --workdir=runs/norm_placement

Question: Post-norm as in the paper, pre-norm, no residual connection, another normalisation, none?

Hypothesis: Pre-norm trains as well; without residual connections or normalisation training is much harder.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "pre_norm", "no_residual", "rms_norm", "no_norm"]),
    scales=SCALES,
)
