"""How many layers? Table 3, rows C.

    ./launch.sh sweep experiments/depth.py --workdir=runs/depth

Question: How does the number of layers matter?

Hypothesis: More layers are better, with less to gain from each.

Answer: not measured yet.
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import TABLE3_SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(rows=select(TABLE3, ["base", "C_N2", "C_N4", "C_N8"]), paper=PAPER, scales=TABLE3_SCALES)
