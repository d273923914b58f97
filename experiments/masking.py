"""What does the causal mask do?

    ./launch.sh sweep experiments/masking.py --workdir=runs/masking

Question: What happens when the decoder is trained without its mask?

Hypothesis: The teacher-forced loss falls to almost nothing, as the answer can be seen, and what the model writes by
itself collapses.

Answer: not measured yet.
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "unmasked"]),
    scales=SCALES,
)
