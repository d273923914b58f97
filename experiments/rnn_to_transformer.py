"""From recurrent networks to the Transformer, a step at a time, with the same number of parameters.

    ./launch.sh sweep experiments/rnn_to_transformer.py --workdir=runs/rnn_to_transformer
    ./launch.sh sweep experiments/rnn_to_transformer.py --scale=translation --workdir=runs/rnn_to_transformer_multi30k

`rnn`: a GRU reads the sentence into one vector, another writes from it. `rnn_bidirectional`: it is read from both ends.
`rnn_attention`: the writer attends to all states of the encoder (Bahdanau et al. 2015); `rnn_luong` attends after its
step; `lstm_attention` has another cell. One layer each, as wide as makes up for the parameters of the base.

Question: What did attention bring to recurrent networks, and what did it bring to leave them out?

Hypothesis: Attention is the largest step, the more so the longer the sentence; the Transformer is better again, and
does all positions of a layer in a constant number of sequential operations, where a recurrent network takes one a word
(Table 1).

Answer: on short sequences nothing that can be seen. On commands of SCAN of at most 8 actions, after 1,000 steps, all
are equal to the Transformer (99.95 ± 0.05 % exact match) within 1 point: the network that reads into one vector
-0.35 ± 0.46 points, from both ends 0.00 ± 0.20, with attention -0.05 ± 0.30 (half of the 95 % interval; p of equality
0.026, 0.004 and 0.008, corrected). Nor does a step differ from the one before it: both are equal within 1 point. They
have 58,296, 57,420, 59,920 and the Transformer 59,360 parameters. (Scale small, seeds 0 to 2, commit 7565bbe907da,
`docs/results/rnn_to_transformer`.) So the hypothesis is not tested: that needs longer sequences, and translation, which
are not measured; nor are attention after the step, the LSTM, speed, and quality by length.
"""

import dataclasses
import re
from typing import Any

from experiments.scales import SCALES
from transformer_jax.config import Config
from transformer_jax.sweeps.experiment import Experiment

ONE_LAYER = {
    "model.family": "recurrent",
    "model.num_heads": 1,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
}


def vocabulary(base: Config) -> int:
    """Rows of the table, where the tokenizer's spec says so; of words there are so few that they do not matter."""
    size = re.search(r"vocab_size=(\d+)", base.data.tokenizer)
    return int(size[1]) if size else 0


def of_transformer(base: Config) -> int:
    """Entries of the base, without biases and norms."""
    model: Any = base.model
    d_k, d_v = model.head_widths
    attention = 2 * model.d_model * model.num_heads * (d_k + d_v)
    feed_forward = 2 * model.d_model * model.d_ff
    layers = model.num_encoder_layers * (attention + feed_forward)
    layers += model.num_decoder_layers * (2 * attention + feed_forward)
    return vocabulary(base) * model.d_model + layers


def of_recurrent(rows: int, d_model: int, gates: int, directions: int, attends: bool, enters: bool) -> int:
    """The same of a recurrent network: reader, writer, its first state, what joins state and context, attention."""
    width = d_model // directions
    reader = directions * gates * width * (d_model + width)
    writer = gates * d_model * (d_model * (3 if enters else 2))
    state = d_model * d_model * (2 if gates == 4 else 1)
    return rows * d_model + reader + writer + state + 2 * d_model**2 + attends * 2 * d_model**2


def recurrent(context: str, *, cell: str = "gru", bidirectional: bool = True):
    """A row: such a network, as wide as leaves it with the parameters of the base."""

    def row(base: Config) -> dict[str, Any]:
        gates, directions = {"gru": 3, "lstm": 4}[cell], 2 if bidirectional else 1

        def distance(d_model: int) -> int:
            entries = of_recurrent(vocabulary(base), d_model, gates, directions, context != "fixed", context != "luong")
            return abs(entries - of_transformer(base))

        d_model = min(range(2, 4 * base.model.d_model, 2), key=distance)
        chosen = {"context": context, "cell": cell, "bidirectional": bidirectional, "d_model": d_model}
        return ONE_LAYER | {f"model.{name}": value for name, value in chosen.items()}

    return row


ROWS = {
    "base": {},
    "rnn": recurrent("fixed", bidirectional=False),
    "rnn_bidirectional": recurrent("fixed"),
    "rnn_attention": recurrent("bahdanau"),
    "rnn_luong": recurrent("luong"),
    "lstm_attention": recurrent("bahdanau", cell="lstm"),
}

EXPERIMENT = Experiment(
    rows=ROWS,
    partners={"rnn_bidirectional": "rnn", "rnn_attention": "rnn_bidirectional"},
    scales=SCALES | {"small": dataclasses.replace(SCALES["small"], seeds=3)},
)
