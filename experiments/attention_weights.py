"""Why a softmax of dot products?

    ./launch.sh sweep experiments/attention_weights.py --workdir=runs/attention_weights

Question: What do the dot product and the softmax bring over other scores and weights?

Hypothesis: Scores and weights of other kinds come close; uniform weights, which ignore content, do not.

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
            "score_bilinear",
            "score_additive",
            "score_cosine",
            "qk_rms_norm",
            "weights_sigmoid",
            "weights_sparsemax",
            "weights_off_by_one",
            "weights_uniform",
            "cross_weights_uniform",
        ],
    ),
    scales=SCALES,
)
