"""Why sines?

    ./launch.sh sweep experiments/positions.py --workdir=runs/positions
    ./launch.sh sweep experiments/positions.py --scale=length_22 --workdir=runs/positions_length_22

The scales `length_22` and `length_26` train on commands of at most so many actions and test on longer ones, up to 48;
`translation` trains a small model on Multi30k.

Question: Why sines, and not the index appended, or its logarithm, or nothing, or relative positions?

Hypothesis: Without positions the encoder sees a bag of words; learned ones equal sines within the training lengths;
relative ones carry over to longer sequences.

Answer: in 1,000 steps on short commands of SCAN (within the training lengths) relative positions learn fastest:
rotary 97.6 ± 1.5 %, T5 96.8 ± 1.2 and Shaw 92.2 ± 4.8 % exact match, better than the base's sines (82.9 ± 2.6) by
14.6 ± 3.6, 13.9 ± 3.7 and 9.2 ± 6.5 points (p = 0.002, 0.002, 0.017 after Holm's correction). Learned positions
(49.5 ± 12.5), ALiBi (41.9 ± 10.0) and the logarithm of the index (31.1 ± 13.8) are worse; a hundredth of the index
(15.9 ± 1.0) is not better than nothing (15.9 ± 0.8); the index itself was not tried. (Scale small, seeds 0 to 4,
commit 871cc6d5f8b1, the base's runs 422224c3a595, `docs/results/positions`.) Longer sequences than in training
(2,000 steps on full SCAN, three seeds) hardly any model writes. Trained on at most 22 actions the sines reach 4.5 ±
1.1 %, Shaw 7.6 ± 1.9, rotary 2.9 ± 3.7, learned positions 0.1 ± 0.2; on at most 26, rotary 13.9 ± 4.9, Shaw 4.7 ±
1.1, ALiBi 3.1 ± 0.3, the sines 0.6 ± 0.8; after Holm's correction nothing stands. (Seeds 0 to 2, commits
871cc6d5f8b1 and a9497ba0a342, `docs/results/positions_length_22` and `positions_length_26`.) In translation (scale
translation: Multi30k, 2,000 steps of a small model, greedy decoding) rotary reaches 24.5 ± 0.2 tokenised BLEU, Shaw
23.5 ± 0.4, T5 23.4 ± 0.8, ALiBi 22.9 ± 0.1, learned positions 22.2 ± 0.5, the logarithm 21.6 ± 0.3, the sines 21.4
± 0.9, a hundredth of the index 18.8 ± 0.1 and nothing 18.6 ± 0.4. By p alone rotary and T5 are better than the
sines, that index and nothing worse (0.022 to 0.036); after Holm's correction over eight rows three seeds do not
settle it. (Seeds 0 to 2, commit 5008cc08a6ff, `docs/results/positions_translation`.)
"""

from configs.rows import ROWS
from experiments.scales import SCALES
from transformer_jax.sweeps.experiment import Experiment, Scale, select


def length_split(cutoff: int) -> Scale:
    """Train on at most `cutoff` actions, test on more."""
    return Scale(
        "configs/scan_short.py",
        seeds=3,
        overrides={
            "data.source": f"scan(split='length', cutoff={cutoff})",
            "data.length_classes": 2,
            "decode.max_extra_length": 50,
            "train.steps": 2000,
            "train.evaluate_every": 500,
        },
        margin=0.01,
    )


TRANSLATION = SCALES["multi30k"].changed(
    {
        "data.tokenizer": "sentencepiece(vocab_size=2000)",
        "data.batching": "packed",
        "data.max_length": 48,
        "data.tokens_per_batch": 1024,
        "model.d_model": 64,
        "model.num_encoder_layers": 2,
        "model.num_decoder_layers": 2,
        "model.dropout_rate": 0.1,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_steps": 200,
        "train.steps": 2000,
        "train.evaluate_every": 500,
        "train.patience": None,
        "decode.beam_size": 1,
        "evaluate.checkpoint": "last",
    }
)

EXPERIMENT = Experiment(
    rows=select(
        ROWS,
        [
            "base",
            "positions_learned",
            "positions_none",
            "positions_index",
            "positions_index_over_100",
            "positions_log_index",
            "positions_rotary",
            "positions_t5",
            "positions_shaw",
            "positions_alibi",
            "positions_transformer_xl",
        ],
    ),
    scales=SCALES | {f"length_{cutoff}": length_split(cutoff) for cutoff in (22, 26)} | {"translation": TRANSLATION},
)
