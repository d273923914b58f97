"""The quick start: the base and one row of each of the four classic ablations, on short commands of SCAN.

    ./launch.sh

Question: What do W_O, the scaling factor, several heads and the second layer of the feed-forward network bring?

Hypothesis: Each of them is worth something, a single head and a feed-forward of one layer least of all on so small a
task.

Answer: nothing that this task needs. The base has converged at 99.91 ± 0.08 % exact match (mean ± standard
deviation), and all four are equal to it within 1 point: one head -0.16 ± 0.50 points, a feed-forward of one layer
-0.13 ± 0.33 (with 49 % fewer parameters), no scaling factor -0.16 ± 0.42, no W_O -0.05 ± 0.33 (half of the 95 %
interval; p of equality 0.006 to 0.018, corrected for two rounds of seeds and four comparisons). (Scale small, seeds 0
to 2, the base and no scaling factor 0 to 5, commits 22379ad6bfb1 and f31bf2195bd4, `docs/results/quickstart_tuned`.)
"""

import dataclasses

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "heads_1", "ffn_depth_1", "scale_none", "no_wo"]),
    scales=SCALES | {"small": dataclasses.replace(SCALES["small"], seeds=3).until_settled(6)},
)
