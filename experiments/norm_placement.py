"""Where should the normalisation stand?

    ./launch.sh sweep experiments/norm_placement.py --workdir=runs/norm_placement

Question: Post-norm as in the paper, pre-norm, no residual connection, another normalisation, none?

Hypothesis: Pre-norm trains as well; without residual connections or normalisation training is much harder.

Answer: in 1,000 steps on short commands of SCAN pre-norm (81.1 ± 5.7 % exact match) and RMSNorm (79.4 ± 6.6) are
not seen to differ from the base (82.9 ± 2.6; by -1.8 ± 8.5 and -3.5 ± 9.8 points). Without residual connections
hardly anything is learned (0.7 ± 1.1 %, p < 0.001 after Holm's correction); without normalisation 56.0 ± 15.9 %,
not settled (p = 0.018 alone, 0.053 after the correction). (Scale small, seeds 0 to 4, commits 9e0bdb04d722 and, of
the base, 422224c3a595, `docs/results/norm_placement`.)
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "pre_norm", "no_residual", "rms_norm", "no_norm"]),
    scales=SCALES,
)
