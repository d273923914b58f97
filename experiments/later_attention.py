"""What has come of attention since.

    ./launch.sh sweep experiments/later_attention.py --workdir=runs/later_attention

Question: What do attention's later kinds cost or bring: keys and values shared by all heads or by half of them, heads
that talk to each other, a window of four positions, linear attention, Transformer-XL's relative positions?

Hypothesis: Shared keys and values cost little; a window costs nothing where what matters stands near, and the rest
where it does not; linear attention is worse; relative positions learn faster.

Answer: not measured.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "multi_query",
            "grouped_query",
            "talking_heads",
            "local",
            "linear_attention",
            "positions_transformer_xl",
        ],
    ),
    scales=SCALES,
)
