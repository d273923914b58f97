"""W_O looks redundant: is it?

    ./launch.sh sweep experiments/output_projection.py --workdir=runs/output_projection

Question: Does the output projection W_O matter?

Hypothesis: Without W_O the model is a little worse, and about as good as a base that has as few parameters.

Answer: not measured yet.
"""

from configs.rows import PARTNERS, ROWS
from transformer_jax.sweeps.experiment import Experiment, Scale, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        ["base", "no_wo", "no_wo_partner", "no_wo_matched"],
    ),
    partners=PARTNERS,
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
