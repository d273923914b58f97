"""How many heads? Table 3, row A, and the same with heads of a fixed width.

    ./launch.sh sweep experiments/heads.py --workdir=runs/heads

Question: How does the number of heads matter, at a fixed d_model and at a fixed d_k?

Hypothesis: One head is worse than several, and too many are worse again (Table 3, row A). At a fixed d_k more heads
help, but they are more parameters.

Answer: in 1,000 steps on short commands of SCAN, 32 heads of width 1 are worse than the base's 4 of width 8: 62.9 ±
5.0 % exact match against 82.9 ± 2.6 % (by 20.0 points, 95 % interval 12.0 to 28.0, p = 0.011 after Holm's
correction). Between 1, 4, 8 and 16 heads at the same size nothing is settled; one head is not seen to be worse
(-2.4 ± 9.4). At a fixed d_k more heads help (16: +14.3 ± 2.9, 32: +15.2 ± 3.2) with two and four times the
parameters. (Scale small, seeds 0 to 4, commit 422224c3a595, `docs/results/heads`.)
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
