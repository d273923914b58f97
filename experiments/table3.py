"""Table 3 of the paper, row by row.

    ./launch.sh sweep experiments/table3.py --workdir=runs/table3

Question: Do the variations of Table 3 order as in the paper?

Hypothesis: Bigger is better, one head is worse, dropout and label smoothing help BLEU, sines equal learned positions.

Answer: not measured yet.
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, Scale

# The paper's eight heads, and layers of which a third, two thirds and four thirds are whole.
SMALL = {"model.num_heads": 8, "model.num_encoder_layers": 3, "model.num_decoder_layers": 3}

EXPERIMENT = Experiment(
    rows=TABLE3,
    paper=PAPER,
    scales=SCALES | {"small": Scale("configs/scan_short.py", seeds=5, overrides=SMALL)},
)
