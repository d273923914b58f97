"""Why a softmax of dot products?

    ./launch.sh sweep experiments/attention_weights.py --workdir=runs/attention_weights

Question: What do the dot product and the softmax bring over other scores and weights?

Hypothesis: Scores and weights of other kinds come close; uniform weights, which ignore content, do not.

Answer: in 1,000 steps on short commands of SCAN the softmax is not replaced so easily: sigmoid (35.1 ± 15.9 % exact
match) and sparsemax weights (23.5 ± 10.6) learn far more slowly than the base (82.9 ± 2.6), by 47.8 ± 20.8 and 59.4
± 14.1 points (p = 0.015 and 0.002 after Holm's correction); a zero logit beside the others is not seen to matter
(+4.6 ± 4.6). Uniform weights, which ignore content, leave 16.7 ± 0.5 %, and 27.1 ± 5.4 % where only the
cross-attention has them (p < 0.001). Of the scores additive is worse (35.0 ± 14.0 %, p = 0.011); bilinear (+0.6 ±
9.3), cosine (-6.3 ± 11.1) and normalised queries and keys (-6.5 ± 11.5) are not seen to differ from the dot
product. (Scale small, seeds 0 to 4, commits 9e0bdb04d722 and, of the base, 422224c3a595,
`docs/results/attention_weights`.)
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
