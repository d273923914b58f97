"""Why 1 / sqrt(d_k)?

    ./launch.sh sweep experiments/scaling_factor.py --workdir=runs/scaling_factor

Question: Does the factor 1 / sqrt(d_k) before the softmax matter, and more so as d_k grows?

Hypothesis: At small d_k it hardly matters; without it the softmax saturates as d_k grows (Section 3.2.1).

Answer: in 1,000 steps on short commands of SCAN the runs without the factor reach 37.2 ± 24.2 % exact match, those
with it 82.9 ± 2.6 %, a difference of 45.7 points that five seeds do not settle after Holm's correction (p = 0.016
alone, 0.062 after), as some seeds hardly suffer. With heads four times as wide it costs 24.3 ± 20.2 points against
the same model with it (p = 0.029): so it matters, but not seen to matter more as d_k grows from 8 to 32. 1 / d_k
lies between (66.6 ± 10.8, not settled); a learned factor ends where the paper's does (82.5 ± 4.0). (Scale small,
seeds 0 to 4, commit 422224c3a595, `docs/results/scaling_factor`.)
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
