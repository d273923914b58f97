"""Table 3 of the paper, row by row.

    ./launch.sh sweep experiments/table3.py --workdir=runs/table3

Question: Do the variations of Table 3 order as in the paper?

Hypothesis: Bigger is better, one head is worse, dropout and label smoothing help BLEU, sines equal learned positions.

Answer: not measured yet.
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment

EXPERIMENT = Experiment(rows=TABLE3, paper=PAPER, scales=SCALES)
