"""What is the feed-forward network for?

    ./launch.sh sweep experiments/feed_forward.py --workdir=runs/feed_forward

Question: What does the feed-forward network bring, and what its non-linearity?

Hypothesis: Without it, or without its non-linearity, the model is worse; the kind of non-linearity hardly matters.

Answer: in 1,000 steps on short commands of SCAN its non-linearity matters: with linear layers only, 60.8 ± 7.7 %
exact match against 82.9 ± 2.6 % (by 22.2 ± 8.7 points, p = 0.011 after Holm's correction), close to the 56.3 ± 13.5
% without the whole network (not settled: p = 0.014 alone, 0.056 after the correction). Which non-linearity is not
seen to matter: GELU +2.5 ± 2.9, SwiGLU +4.7 ± 7.4, GEGLU +4.5 ± 7.7. (Scale small, seeds 0 to 4, commits
9e0bdb04d722 and, of the base, 422224c3a595, `docs/results/feed_forward`.)
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "ffn_gelu", "ffn_linear", "ffn_swiglu", "ffn_geglu", "ffn_none"]),
    scales=SCALES,
)
