"""Why does a language model repeat itself? Temperature, nuclei and search.

    ./launch.sh sweep experiments/temperature.py --workdir=runs/temperature

Question: How much of what a language model writes does it say again, by the way its tokens are chosen?

Hypothesis: The most probable text repeats itself (Holtzman et al. 2020): greedy search and a beam more than any sample,
and samples the more, the lower the temperature; a nucleus of nine tenths of the mass lies between temperatures.

Answer: not measured.
"""

from pathlib import Path

from experiments.scales import SMOKE
from transformer_jax.sweeps.experiment import Experiment, Scale

STRATEGY = "decode.strategy"
ROWS = {
    "temperature_1": {STRATEGY: "sample"},
    "temperature_0.5": {STRATEGY: "sample(temperature=0.5)"},
    "temperature_1.5": {STRATEGY: "sample(temperature=1.5)"},
    "top_p_0.9": {STRATEGY: "sample(top_p=0.9)"},
    "greedy": {STRATEGY: "greedy"},
    "beam_4": {STRATEGY: "beam"},
}
METRIC = {"metric": "valid/unrepeated", "percent": True}
TEXT_OF_THIS_CHECKOUT = {
    "data.source": "text(file='LICENSE')",
    "data.directory": str(Path(__file__).parent.parent),
    "data.max_length": 16,
    "model.positions": "learned(max_length=16)",
}
SMALL = {  # windows that are long enough for a text to repeat itself in
    "data.max_length": 128,
    "data.tokens_per_batch": 12 * 128,
    "model.positions": "learned(max_length=128)",
    "model.num_layers": 2,
    "model.d_model": 64,
    "model.d_ff": 256,
    "decode.max_extra_length": 64,
}

EXPERIMENT = Experiment(
    base="temperature_1",
    rows=ROWS,
    scales={
        "smoke": Scale("configs/shakespeare.py", seeds=1, overrides={**SMOKE, **TEXT_OF_THIS_CHECKOUT}, **METRIC),
        "small": Scale("configs/shakespeare.py", seeds=3, overrides=SMALL, **METRIC),
        "full": Scale("configs/shakespeare_large.py", seeds=3, overrides={"decode.max_extra_length": 128}, **METRIC),
    },
)
