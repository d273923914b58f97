"""Why sines?

    ./launch.sh sweep experiments/positions.py --workdir=runs/positions

Question: Why sines, and not the index appended, or its logarithm, or nothing, or relative positions?

Hypothesis: Without positions the encoder sees a bag of words; learned ones equal sines within the training lengths;
relative ones carry over to longer sequences.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "positions_learned",
            "positions_none",
            "positions_index",
            "positions_log_index",
            "positions_rotary",
            "positions_t5",
            "positions_shaw",
            "positions_alibi",
        ],
    ),
    scales=SCALES,
)
