"""The four classic ablations, on translation.

    TRANSFORMER_JAX_DATA=CORPORA ./launch.sh sweep experiments/classics.py --workdir=runs/classics

At scale small, as at `translation` of every other experiment, a run is `configs/multi30k.py:small`: some 20 minutes
of one core that does nothing else.

Question: What do several heads, the feed-forward's second layer, the scaling factor and W_O bring to a translation
model that has converged?

Hypothesis: As in Table 3 a single head costs about a point of BLEU; one linear layer costs more than a third brings;
without the factor the loss is larger where d_k is; W_O can be left out at little cost, at equal size at none.

Answer: not measured.
"""

from configs.rows import PARTNERS, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "heads_1",
            "heads_2",
            "heads_8",
            "heads_16",
            "ffn_depth_1",
            "ffn_depth_1_partner",
            "ffn_depth_3_matched",
            "scale_none",
            "wide_heads",
            "wide_heads_scale_none",
            "no_wo",
            "no_wo_partner",
            "no_wo_matched",
        ],
    ),
    partners=PARTNERS,
    scales=SCALES | {"small": SCALES["translation"]},
)
