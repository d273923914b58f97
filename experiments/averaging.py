"""Last, best or averaged parameters?

    ./launch.sh sweep experiments/averaging.py --workdir=runs/averaging

Question: Does it matter which parameters are evaluated: last, best, the average of five, or a moving average?

Hypothesis: Averages are a little better than the last checkpoint (Section 6.1 averages five).

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES, SMOKE
from transformer_jax.sweeps.experiment import Experiment, Scale, select

# Five checkpoints to average.
SMOKE_SCALE = Scale("configs/scan_short.py", seeds=1, overrides=SMOKE | {"train.evaluate_every": 2})

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "best_checkpoint", "averaged", "ema"]),
    scales=SCALES | {"smoke": SMOKE_SCALE},
)
