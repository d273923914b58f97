"""Letters to sounds: how English words are pronounced, CMUdict, a small encoder-decoder.

    TRANSFORMER_JAX_DATA=CORPORA ./launch.sh train --config=configs/g2p.py --workdir=runs/g2p
    ./launch.sh translate --workdir=runs/g2p <<< "t r a n s f o r m e r"

Score: word error rate on the tenth of the words that the split by hash holds out, right being any listed pronunciation;
30.2 % without stress is published for a Transformer of 3 layers and width 256 on another split of this dictionary
(github.com/cmusphinx/g2p-seq2seq).

Expected: not measured.
"""

from configs.rows import ROWS
from transformer_jax.config import ConfigDict, default_config

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """2+2 layers, d_model 128, 4 heads, letters and phonemes in one table."""
    config = default_config()
    config.data.source = "pronunciations"
    config.data.directory = "cmudict"
    config.data.tokenizer = "words"
    config.data.tokens_per_batch = 2048
    config.data.length_classes = 3
    config.data.max_length = 32
    config.model.d_model = 128
    config.model.num_heads = 4
    config.model.d_ff = 256
    config.model.num_encoder_layers = 2
    config.model.num_decoder_layers = 2
    config.model.dropout_rate = 0.05
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 300
    config.train.steps = 3000
    config.train.evaluate_every = 500
    config.decode.max_extra_length = 20
    config.evaluate.metrics = ("word_error_rate", "word_error_rate(stress=False)")
    return config
