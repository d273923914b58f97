"""Why 1 / sqrt(d_k)?

    ./launch.sh sweep experiments/scaling_factor.py --workdir=runs/scaling_factor

Question: Does the factor 1 / sqrt(d_k) before the softmax matter?

Hypothesis: At small d_k it hardly matters; without it the softmax saturates as d_k grows (Section 3.2.1).

Answer: not measured yet.
"""

from configs.rows import ROWS
from transformer_jax.sweeps.experiment import Experiment, Scale, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        ["base", "scale_none", "scale_inv_d_k", "scale_learned"],
    ),
    scales={
        "smoke": Scale(
            "configs/scan_short.py",
            seeds=2,
            overrides={"train.steps": 40, "train.evaluate_every": 20, "optimizer.warmup_steps": 10},
        ),
        "small": Scale("configs/scan_short.py", seeds=5),
        "full": Scale("configs/scan.py", seeds=5),
    },
)
