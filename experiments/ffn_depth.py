"""How deep should the feed-forward network be?

    ./launch.sh sweep experiments/ffn_depth.py --workdir=runs/ffn_depth

Question: What if the feed-forward network had one, three or four layers?

Hypothesis: One linear layer is worse than two, also at equal size; a third and a fourth pay for their parameters
only.

Answer: in 1,000 steps on short commands of SCAN one linear layer is worse than two: 26.0 ± 9.2 % exact match
against 82.9 ± 2.6 % (by 57.0 ± 12.9 points, p = 0.002 after Holm's correction). Against a base of equal size it is
19.2 ± 14.9 points behind, not settled (p = 0.11). A third and a fourth layer are not seen to make a difference,
neither with their additional parameters (+6.9 ± 12.0, +5.5 ± 12.8) nor at the size of the base (-7.2 ± 14.0, -3.7 ±
11.8). (Scale small, seeds 0 to 4, commit 422224c3a595, `docs/results/ffn_depth`.)
"""

from configs.rows import PARTNERS, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "ffn_depth_1",
            "ffn_depth_1_partner",
            "ffn_depth_3",
            "ffn_depth_3_matched",
            "ffn_depth_4",
            "ffn_depth_4_matched",
        ],
    ),
    partners=PARTNERS,
    scales=SCALES,
)
