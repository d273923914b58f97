"""Why 1 / sqrt(d_k)?

    ./launch.sh sweep experiments/scaling_factor.py --workdir=runs/scaling_factor

Question: Does the factor 1 / sqrt(d_k) before the softmax matter, and more so as d_k grows?

Hypothesis: At small d_k it hardly matters; without it the softmax saturates as d_k grows (Section 3.2.1).

Answer: in 1,000 steps on short commands of SCAN the runs without the factor stay behind at every width: by 45.7 ±
31.4 points of exact match at d_k 8, 24.3 ± 20.2 at 32 and 28.7 ± 26.9 at 128. Each p is below 0.05 alone (0.016,
0.029, 0.041) and none after Holm's correction over ten comparisons (0.11 to 0.17), so five seeds do not settle it:
without the factor they spread by 17 to 24 points (standard deviation), with it by 1.5 to 2.6. That it matters more
as d_k grows is not seen. 1 / d_k lies between (66.6 ± 10.8 %, not settled); a learned factor ends where the paper's
does (82.5 ± 4.0 %, the base 82.9 ± 2.6 %). (Scale small, seeds 0 to 4, commits 422224c3a595 and, at d_k 128,
9e0bdb04d722, `docs/results/scaling_factor`.)
"""

from configs.rows import PARTNERS, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "scale_none",
            "scale_inv_d_k",
            "scale_learned",
            "wide_heads",
            "wide_heads_scale_none",
            "wider_heads",
            "wider_heads_scale_none",
        ],
    ),
    partners=PARTNERS,
    scales=SCALES,
)
