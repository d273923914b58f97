"""How many layers? Table 3, rows C.

    ./launch.sh sweep experiments/depth.py --workdir=runs/depth

Question: How does the number of layers matter?

Hypothesis: More layers are better, with less to gain from each.

Answer: not measured at the tuned base. Before it was tuned, in 1,000 steps on short commands of SCAN, a model of three
layers had not learnt its task (59.8 ± 11.4 % exact match), and no difference was seen to one, two or four layers: the
seeds spread too widely. (Rows C_N2, C_N4 and C_N8, scale small, seeds 0 to 2, `docs/results/table3`.)
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import TABLE3_SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(rows=select(TABLE3, ["base", "C_N2", "C_N4", "C_N8"]), paper=PAPER, scales=TABLE3_SCALES)
