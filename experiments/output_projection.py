"""W_O looks redundant: is it?

    ./launch.sh sweep experiments/output_projection.py --workdir=runs/output_projection

Question: Does the output projection W_O matter, alone and with W_V gone?

Hypothesis: Without W_O the model is a little worse, and about as good as a base that has as few parameters.

Answer: not measured yet.
"""

from configs.rows import PARTNERS, ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, select

EXPERIMENT = Experiment(
    rows=select(ROWS, ["base", "no_wo", "no_wo_partner", "no_wo_matched", "no_wv", "no_wo_no_wv"]),
    partners=PARTNERS,
    scales=SCALES,
)
