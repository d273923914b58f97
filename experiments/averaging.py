"""Last, best or averaged parameters?

    ./launch.sh sweep experiments/averaging.py --workdir=runs/averaging

Question: Does it matter which parameters are evaluated: last, best, the average of five, or a moving average?

Hypothesis: Averages are a little better than the last checkpoint (Section 6.1 averages five).

Answer: in so short a training averaging five checkpoints is harmful: 42.5 ± 4.7 % exact match against 82.9 ± 2.6 %
for the last (by 40.4 ± 5.0 points, p < 0.001 after Holm's correction), as the five reach back to the beginning of
the 1,000 steps on short commands of SCAN. The best checkpoint is the last one with all seeds; an exponential moving
average (0.99) is 1.0 ± 0.8 points behind, not settled (p = 0.029 alone, 0.058 after the correction). What averaging
does at the end of a long training: not measured. (Scale small, seeds 0 to 4, commits 9e0bdb04d722 and, of the base,
422224c3a595, `docs/results/averaging`.)
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
