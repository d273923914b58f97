"""What does the causal mask do?

    ./launch.sh sweep experiments/masking.py --workdir=runs/masking

Question: What happens when the decoder is trained without its mask?

Hypothesis: The teacher-forced loss falls to almost nothing, as the answer can be seen, and what the model writes by
itself collapses.

Answer: as expected, in 1,000 steps on short commands of SCAN. Trained without the mask the model is given the
answer: its nll on the test half falls to 0.081 ± 0.001 (the base 0.172 ± 0.009), 99.998 % of the tokens and 99.98 %
of the sentences are right as long as the true tokens are there to be copied. What it writes by itself is right in
0.03 ± 0.04 % of the cases, against 82.9 ± 2.6 % (p < 0.001). (Scale small, seeds 0 to 4, commits 9e0bdb04d722 and,
of the base, 422224c3a595, `docs/results/masking`.)
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "unmasked"]),
    scales=SCALES,
)
