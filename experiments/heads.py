"""How many heads? Table 3, row A, and the same with heads of a fixed width.

    ./launch.sh sweep experiments/heads.py --workdir=runs/heads

Question: How does the number of heads matter, at a fixed d_model and at a fixed d_k?

Hypothesis: One head is worse than several, and too many are worse again (Table 3, row A). At a fixed d_k more heads
help, but they are more parameters.

Answer: on short commands of SCAN, where the base has converged (99.91 ± 0.08 % exact match, mean ± standard
deviation), every number of heads is equal to it within 1 point: 1 head -0.16 ± 0.61, 8 heads -0.11 ± 0.20, 16 heads
-0.08 ± 0.61, 32 heads of width 1 -0.16 ± 0.35 (half of the 95 % interval), and so are 1, 16 and 32 heads of the fixed
width 8, with 31 % fewer, 124 % and 290 % more parameters. So short commands need no more than one head; what a harder
task needs is not answered here. (Scale small, seeds 0 to 2, of one head of width 8 0 to 5, commit f519ea49497c,
`docs/results/heads_tuned`.) With the base as it was before it was tuned, which had not converged (82.9 ± 2.6 %), 32
heads were 20.0 ± 8.0 points behind; among all comparisons of that base this does not stand (`docs/results/heads`).
"""

from configs.rows import NOTES, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "heads_1",
            "heads_4",
            "heads_8",
            "heads_16",
            "heads_32",
            "heads_1_fixed_d_k",
            "heads_4_fixed_d_k",
            "heads_16_fixed_d_k",
            "heads_32_fixed_d_k",
        ],
    ),
    notes=NOTES,
    scales=SCALES,
)
