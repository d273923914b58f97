"""Table 3 of the paper: its rows, and what it reports for them.

A row is stated relative to its base: on `configs/base.py` it is the paper's, on a smaller base the same change.
"""

from transformer_jax.config import Config


def key_width(factor: float):
    """d_k alone: d_v stays."""

    def row(base: Config) -> dict:
        d_k, d_v = base.model.head_widths
        return {"model.d_k": max(1, round(d_k * factor)), "model.d_v": d_v}

    return row


def feed_forward_width(factor: float):
    """d_ff."""
    return lambda base: {"model.d_ff": max(1, round(base.model.d_ff * factor))}


def layers(factor: float):
    """Both stacks."""

    def row(base: Config) -> dict:
        encoder, decoder = base.model.num_encoder_layers, base.model.num_decoder_layers
        return {
            "model.num_encoder_layers": max(1, round(encoder * factor)),
            "model.num_decoder_layers": max(1, round(decoder * factor)),
        }

    return row


def width(factor: float):
    """d_model, d_k and d_v."""

    def row(base: Config) -> dict:
        sizes = {"d_model": base.model.d_model, "d_k": base.model.head_widths[0], "d_v": base.model.head_widths[1]}
        return {f"model.{name}": max(1, round(size * factor)) for name, size in sizes.items()}

    return row


def heads(factor: float):
    """The number of heads at the same d_model."""
    return lambda base: {"model.num_heads": max(1, round(base.model.num_heads * factor))}


def big(base: Config) -> dict:
    """The big model: twice the width, d_ff and heads, three times the dropout and the steps."""
    model = base.model
    return {
        "model.d_model": 2 * model.d_model,
        "model.d_ff": 2 * model.d_ff,
        "model.num_heads": 2 * model.num_heads,
        "model.dropout_rate": 0.3,
        "train.steps": 3 * base.train.steps,
    }


TABLE3 = {
    "base": {},
    "A_h1": heads(1 / 8),
    "A_h4": heads(1 / 2),
    "A_h16": heads(2),
    "A_h32": heads(4),
    "B_dk16": key_width(1 / 4),
    "B_dk32": key_width(1 / 2),
    "C_N2": layers(1 / 3),
    "C_N4": layers(2 / 3),
    "C_N8": layers(4 / 3),
    "C_d256": width(1 / 2),
    "C_d1024": width(2),
    "C_dff1024": feed_forward_width(1 / 2),
    "C_dff4096": feed_forward_width(2),
    "D_drop0.0": {"model.dropout_rate": 0.0},
    "D_drop0.2": {"model.dropout_rate": 0.2},
    "D_ls0.0": {"train.label_smoothing": 0.0},
    "D_ls0.2": {"train.label_smoothing": 0.2},
    "E_learned": {"model.positions": "learned"},
    "big": big,
}
"""Named as in the paper."""


def _reported(ppl: float, bleu: float, parameters_millions: float = 65) -> dict[str, float]:
    return {"ppl": ppl, "bleu": bleu, "parameters_millions": parameters_millions}


PAPER = {
    "base": _reported(4.92, 25.8),
    "A_h1": _reported(5.29, 24.9),
    "A_h4": _reported(5.00, 25.5),
    "A_h16": _reported(4.91, 25.8),
    "A_h32": _reported(5.01, 25.4),
    "B_dk16": _reported(5.16, 25.1, 58),
    "B_dk32": _reported(5.01, 25.4, 60),
    "C_N2": _reported(6.11, 23.7, 36),
    "C_N4": _reported(5.19, 25.3, 50),
    "C_N8": _reported(4.88, 25.5, 80),
    "C_d256": _reported(5.75, 24.5, 28),
    "C_d1024": _reported(4.66, 26.0, 168),
    "C_dff1024": _reported(5.12, 25.4, 53),
    "C_dff4096": _reported(4.75, 26.2, 90),
    "D_drop0.0": _reported(5.77, 24.6),
    "D_drop0.2": _reported(4.95, 25.5),
    "D_ls0.0": _reported(4.67, 25.3),
    "D_ls0.2": _reported(5.47, 25.7),
    "E_learned": _reported(4.92, 25.7),
    "big": _reported(4.33, 26.4, 213),
}
"""Perplexity per wordpiece and BLEU on newstest2013, and parameters in millions."""
