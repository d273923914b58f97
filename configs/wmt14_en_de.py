"""WMT 2014 English to German with the paper's base model (Section 5): 100,000 steps of 25,000 + 25,000 tokens.

    pip install 'transformer_jax[tf]'      # once, to prepare the corpus: TFDS needs TensorFlow for it
    python -c "import tensorflow_datasets as tfds; \
        tfds.builder('wmt14_translate/de-en', file_format='array_record').download_and_prepare()"
    ./launch.sh train --config=configs/wmt14_en_de.py --workdir=runs/wmt14

On a machine without TensorFlow, copy the prepared directory there and name it:

    --config.data.source=tfds --config.data.directory=DIRECTORY/wmt14_translate/de-en/1.0.0

Expected: 27.3 BLEU (Table 2: newstest2014, tokenised, compounds split, average of 5 checkpoints). Not measured: this
config has not been run.
"""

from configs.rows import ROWS
from transformer_jax.config import ConfigDict, default_config

__all__ = ["ROWS", "get_config"]


def get_config() -> ConfigDict:
    """The defaults are the paper's; a checkpoint every 2,000 steps stands for its ten minutes."""
    config = default_config()
    config.data.source = "tfds(builder='wmt14_translate/de-en')"
    config.data.source_language = "en"
    config.data.target_language = "de"
    config.data.tokenizer = "sentencepiece(vocab_size=37000)"
    config.train.evaluate_every = 2000
    config.evaluate.checkpoint = "average:5"
    config.evaluate.metrics = ("bleu", "chrf")
    return config
