"""How many heads? Table 3, row A, and the same with heads of a fixed width.

    ./launch.sh sweep experiments/heads.py --workdir=runs/heads

Question: How does the number of heads matter, at a fixed d_model and at a fixed d_k?

Hypothesis: One head is worse than several, and too many are worse again (Table 3, row A). At a fixed d_k more heads
help, but they are more parameters.

Answer: not measured yet.
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
