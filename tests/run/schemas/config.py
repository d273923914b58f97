"""The run of which a directory is kept for every schema: 344 parameters."""

from transformer_jax.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    """Reversing up to four symbols, for so long that something is written."""
    config = default_config()
    config.data.source = "reverse(symbols=4, max_length=4, examples=60)"
    config.data.tokenizer = "words"
    config.data.tokens_per_batch = 128
    config.data.length_classes = 2
    config.data.max_length = 16
    config.model.d_model = 4
    config.model.num_heads = 1
    config.model.d_ff = 4
    config.model.num_encoder_layers = 1
    config.model.num_decoder_layers = 1
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 0.03
    config.optimizer.ema_decay = 0.9
    config.train.steps = 60
    config.train.evaluate_every = 60
    config.train.keep_last = 1
    config.decode.strategy = "greedy"
    config.decode.max_extra_length = 3
    config.evaluate.metrics = ("exact_match",)
    return config
