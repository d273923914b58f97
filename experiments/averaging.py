"""Last, best or averaged parameters?

    ./launch.sh sweep experiments/averaging.py --workdir=runs/averaging

Question: Does it matter which parameters are evaluated: last, best, the average of five, or a moving average?

Hypothesis: Averages are a little better than the last checkpoint (Section 6.1 averages five).

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

LAST = {name: scale.changed({"evaluate.checkpoint": "last"}) for name, scale in SCALES.items()}
FIVE_CHECKPOINTS = {"smoke": LAST["smoke"].changed({"train.evaluate_every": 2})}

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "best_checkpoint", "averaged", "ema"]),
    scales=LAST | FIVE_CHECKPOINTS,
)
