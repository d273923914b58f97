"""How deep should the feed-forward network be?

    ./launch.sh sweep experiments/ffn_depth.py --workdir=runs/ffn_depth

Question: What if the feed-forward network had one, three or four layers?

Hypothesis: One linear layer is worse than two, also at equal size; a third and a fourth pay for their parameters
only.

Answer: not measured yet.
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
