"""Table 3 of the paper, row by row.

    ./launch.sh sweep experiments/table3.py --workdir=runs/table3

Question: Do the variations of Table 3 order as in the paper?

Hypothesis: Bigger is better, one head is worse, dropout and label smoothing help BLEU, sines equal learned positions.

Answer: not settled at this size. On short commands of SCAN, 1,000 steps of a model with the paper's eight heads but
d_model 32 and three layers, three seeds spread so widely (base 59.8 ± 11.4 % exact match) that after Holm's
correction over 19 rows no difference stands. The signs that p alone would call differences: d_model doubled
(+39.2), big (+27.9) and no dropout (+39.0) are better, d_model halved (-45.7), dropout 0.2 (-47.7), d_k 4 cut to 1
and 2 (-35.3, -27.6), d_ff halved (-22.7), no label smoothing (-8.7) and learned positions (-31.3) are worse. Widths
order as in the paper, depths do not (four layers -17.9 ± 47.1, one -1.6 ± 38.2); dropout does the opposite of it,
in a training too short to overfit. One head is not seen to be worse (+18.2 ± 38.8). The paper's sizes: not
measured. (Scale small, seeds 0 to 2, commits 871cc6d5f8b1 and, of C_N4, 422224c3a595, `docs/results/table3`.)
"""

from configs.table3 import PAPER, TABLE3
from experiments.scales import TABLE3_SCALES
from transformer_jax.sweeps.experiment import Experiment

EXPERIMENT = Experiment(rows=TABLE3, paper=PAPER, scales=TABLE3_SCALES)
