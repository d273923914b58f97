"""Why sines?

    ./launch.sh sweep experiments/positions.py --workdir=runs/positions
    ./launch.sh sweep experiments/positions.py --scale=length_22 --workdir=runs/positions_length_22

The scales `length_22` and `length_26` train on commands of at most so many actions and test on longer ones, up to 48.

Question: Why sines, and not the index appended, or its logarithm, or nothing, or relative positions?

Hypothesis: Without positions the encoder sees a bag of words; learned ones equal sines within the training lengths;
relative ones carry over to longer sequences.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, Scale, select


def length_split(cutoff: int) -> Scale:
    """Train on at most `cutoff` actions, test on more."""
    return Scale(
        "configs/scan_short.py",
        seeds=3,
        overrides={
            "data.source": f"scan(split='length', cutoff={cutoff})",
            "data.length_classes": 2,
            "decode.max_extra_length": 50,
            "train.steps": 2000,
            "train.evaluate_every": 500,
        },
    )


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
    scales=SCALES | {f"length_{cutoff}": length_split(cutoff) for cutoff in (22, 26)},
)
