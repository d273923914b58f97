"""How large an experiment is run: SCALES, shared by the files under `experiments/`.

smoke: does it run at all; small: minutes on two cores; full: Multi30k, for a GPU.
"""

from transformer_jax.sweeps.experiment import Scale

SMOKE = {"train.steps": 40, "train.evaluate_every": 8, "optimizer.warmup_steps": 10}
BLEU = {"metric": "test/tokenised_bleu", "percent": False}

SCALES = {
    "smoke": Scale("configs/scan_short.py", seeds=2, overrides=SMOKE),
    "small": Scale("configs/scan_short.py", seeds=5),
    "full": Scale("configs/multi30k.py", seeds=3, **BLEU),
}
