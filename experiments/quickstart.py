"""The quick start: the base and one row of each of the four classic ablations, on short commands of SCAN.

    ./launch.sh

Question: What do W_O, the scaling factor, several heads and the second layer of the feed-forward network bring?

Hypothesis: Each of them is worth something, a single head and a feed-forward of one layer least of all on so small a
task.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, Scale, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "heads_1", "ffn_depth_1", "scale_none", "no_wo"]),
    scales=SCALES | {"small": Scale("configs/scan_short.py", seeds=3)},
)
