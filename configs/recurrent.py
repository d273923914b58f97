"""Multi30k German to English by recurrent networks with attention (Bahdanau et al. 2015).

    TRANSFORMER_JAX_DATA=CORPORA ./launch.sh train --config=configs/recurrent.py --workdir=runs/recurrent
    TRANSFORMER_JAX_DATA=CORPORA ./launch.sh train --config=configs/recurrent.py:gnmt --workdir=runs/gnmt

Score: tokenised BLEU on test_2016_flickr. Published for a GRU with attention on this data: 28.1, in lower case and
words where this has the case of the files and pieces, so that the two do not compare to the point.

Expected: 29.20 (seed 0, beam 4, `docs/results/recurrent`) in 15 minutes of a shared core. The other rows: not measured.
"""

from configs import rows
from configs.rows import PROJECTIONS
from transformer_jax.config import ConfigDict, default_config

SCORE = "model.attention.score"
GNMT = {
    "model.cell": "lstm",
    "model.num_encoder_layers": 4,
    "model.num_decoder_layers": 4,
    "model.residual": "post_norm",
}
OF_LAYERS = ("ffn_", "positions_", "no_wo_matched", "unmasked", "local")
ROWS = {name: row for name, row in rows.ROWS.items() if not name.startswith(OF_LAYERS)} | {
    # The encoder, and what the decoder has of it.
    "forward": {"model.bidirectional": False},
    "fixed": {"model.context": "fixed"},
    "fixed_forward": {"model.context": "fixed", "model.bidirectional": False},
    "luong": {"model.context": "luong"},
    # How an annotation is scored (Luong et al. 2015, Eq. 7): as it is, or by a matrix between it and the state.
    "luong_dot": {"model.context": "luong", SCORE: "dot", PROJECTIONS: "none"},
    "luong_general": {"model.context": "luong", SCORE: "bilinear", PROJECTIONS: "none"},
    # The cell, and the stack of Wu et al. 2016.
    "vanilla": {"model.cell": "vanilla"},
    "lstm": {"model.cell": "lstm"},
    "gnmt": GNMT,
}


def get_config() -> ConfigDict:
    """A GRU that reads from both ends and one that writes, d_model 128: 0.8 M parameters."""
    config = default_config("recurrent")
    config.data.source = "parallel_text"
    config.data.directory = "multi30k/tok"
    config.data.tokenizer = "sentencepiece(vocab_size=4000)"
    config.data.tokens_per_batch = 2048
    config.data.length_classes = 4
    config.data.max_length = 64
    config.data.source_language = "de"
    config.data.target_language = "en"
    config.model.d_model = 128
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 2.5e-3
    config.optimizer.warmup_steps = 200
    config.train.steps = 2000
    config.train.evaluate_every = 400
    config.train.log_every = 50
    config.evaluate.metrics = ("tokenised_bleu",)
    return config
