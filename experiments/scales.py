"""How large an experiment is run: SCALES, shared by the files under `experiments/`.

A difference of less than 1 point of exact match or 0.3 BLEU counts as none; a seed below 50 % has not learnt its task.
smoke: does it run at all; small: minutes on two cores; translation: some 20 minutes of one core a run; multi30k: hours
of a GPU; full: the paper's sizes and corpus. The bases of small are tuned (`docs/results/tuning/scan_short` and
`table3`).
"""

from configs import multi30k
from transformer_jax.sweeps.experiment import Scale

SMOKE = {
    "data.source": "reverse(symbols=6, max_length=6, examples=200)",
    "data.tokens_per_batch": 256,
    "optimizer.warmup_steps": 2,
    "train.steps": 10,
    "train.evaluate_every": 10,
    "decode.max_extra_length": 4,
}

SCALES = {
    "smoke": Scale("configs/scan_short.py", seeds=1, overrides=SMOKE),
    "small": Scale("configs/scan_short.py", seeds=5, margin=0.01, failing=0.5),
    "translation": Scale(
        "configs/multi30k.py",
        seeds=3,
        overrides=multi30k.ROWS["small"],
        metric="test/tokenised_bleu",
        percent=False,
        margin=0.3,
    ),
    "multi30k": Scale("configs/multi30k.py", seeds=3, metric="test/tokenised_bleu", percent=False, margin=0.3),
    "full": Scale("configs/wmt14_en_de.py", seeds=3, metric="test/bleu", percent=False, margin=0.3),
}

# The paper's eight heads, and layers of which a third, two thirds and four thirds are whole.
TABLE3_SCALES = SCALES | {
    "small": SCALES["small"].changed(
        {
            "model.num_heads": 8,
            "model.num_encoder_layers": 3,
            "model.num_decoder_layers": 3,
            "train.label_smoothing": 0.1,
        }
    )
}
