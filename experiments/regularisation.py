"""Dropout and label smoothing: Table 3, rows D.

    ./launch.sh sweep experiments/regularisation.py --workdir=runs/regularisation

Question: What do dropout and label smoothing bring?

Hypothesis: Without dropout the model overfits; label smoothing costs perplexity and helps accuracy (Section 5.4).

Answer: not measured yet.
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import TABLE3_SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(TABLE3, ["base", "D_drop0.0", "D_drop0.2", "D_ls0.0", "D_ls0.2"]), paper=PAPER, scales=TABLE3_SCALES
)
