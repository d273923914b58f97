"""The quick start: the base and one row of each of the four classic ablations, on short commands of SCAN.

    ./launch.sh

Question: What do W_O, the scaling factor, several heads and the second layer of the feed-forward network bring?

Hypothesis: Each of them is worth something, a single head and a feed-forward of one layer least of all on so small a
task.

Answer: with three seeds only the feed-forward's second layer is settled: without it exact match falls from 84.2 ±
2.7 % to 26.0 ± 9.5 % (by 58.2 points, 95 % interval 30.9 to 85.5, p = 0.047 after Holm's correction). Without the
scaling factor it fell by 48.7 points, without W_O by 11.8, with one head by 2.4, but the seeds differ too much for
a verdict. (Scale small, seeds 0 to 2, commit 29afe1d3ccea, `docs/results/quickstart`.)
"""

import dataclasses

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "heads_1", "ffn_depth_1", "scale_none", "no_wo"]),
    scales=SCALES | {"small": dataclasses.replace(SCALES["small"], seeds=3).until_settled(6)},
)
