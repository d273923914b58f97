"""How many layers? Table 3, rows C.

    ./launch.sh sweep experiments/depth.py --workdir=runs/depth

Question: How does the number of layers matter?

Hypothesis: More layers are better, with less to gain from each.

Answer: not settled at this size. In 1,000 steps on short commands of SCAN of a model of three layers (59.8 ± 11.4 %
exact match) no difference is seen to one (-1.6 ± 38.2 points), two (+9.4 ± 30.5) or four layers (-17.9 ± 47.1): the
seeds spread too widely. (Scale small, seeds 0 to 2, commits 871cc6d5f8b1 and, of C_N4, 422224c3a595,
`docs/results/depth`.)
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import TABLE3_SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(rows=select(TABLE3, ["base", "C_N2", "C_N4", "C_N8"]), paper=PAPER, scales=TABLE3_SCALES)
