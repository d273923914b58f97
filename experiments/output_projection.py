"""W_O looks redundant: is it?

    ./launch.sh sweep experiments/output_projection.py --workdir=runs/output_projection

Question: Does the output projection W_O matter, alone and with W_V gone?

Hypothesis: Without W_O the model is a little worse, and about as good as a base that has as few parameters.

Answer: in 1,000 steps on short commands of SCAN leaving out W_O is not seen to matter (13.0 ± 19.6 points less than
82.9 % exact match), nor more than leaving out as many parameters elsewhere (17.2 ± 18.7; the two differ by 4.2 ±
28.0). Leaving out W_V alone costs 13.5 ± 8.6 points, not settled (p = 0.012 alone, 0.061 after Holm's correction).
Without both, where each head moves its slice of the vector as it is, 23.7 ± 8.4 % are left, 59.2 ± 8.9 points less
(p < 0.001). So neither can be left out as redundant where the other is gone. (Scale small, seeds 0 to 4, commit
422224c3a595, `docs/results/output_projection`.)
"""

from configs.rows import PARTNERS, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "no_wo", "no_wo_partner", "no_wo_matched", "no_wv", "no_wo_no_wv"]),
    partners=PARTNERS,
    scales=SCALES,
)
