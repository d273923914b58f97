"""ROWS: the named ablations, each a row of data: dotted config paths and values.

A row that depends on its base is a function of the base's Config. PARTNERS names, for rows that change the number of
parameters, a row of (nearly) the same number to compare with; "base" where the row itself was made to match.
"""

from transformer_jax.config import Config

SCALE = "model.attention.scale"
WEIGHTS = "model.attention.weights"
PROJECTIONS = "model.attention.projections"
POSITIONS = "model.positions"
OUTPUT_PROJECTION = "model.attention.output_projection"


def fixed_d_k(num_heads: int):
    """More heads of the base's width: another question than Table 3's row A, confounded with size."""

    def row(base: Config) -> dict:
        d_k, d_v = base.model.head_widths
        return {"model.num_heads": num_heads, "model.d_k": d_k, "model.d_v": d_v}

    return row


def feed_forward_parameters(d_model: int, d_ff: int, depth: int) -> int:
    """Entries of one feed-forward network (Eq. 2, biases included)."""
    if depth == 1:
        return d_model * d_model + d_model
    return d_model * d_ff + d_ff + (depth - 2) * (d_ff * d_ff + d_ff) + d_ff * d_model + d_model


def nearest_d_ff(d_model: int, depth: int, parameters: int) -> int:
    """The d_ff whose feed-forward network of that depth comes nearest to so many parameters."""
    most = max(1, parameters // d_model + 1)
    return min(range(1, most + 1), key=lambda d_ff: abs(feed_forward_parameters(d_model, d_ff, depth) - parameters))


def ffn_depth_1_partner(base: Config) -> dict:
    """The base with a d_ff (half of d_model) that leaves it as many parameters as ffn_depth 1 has."""
    d_model = base.model.d_model
    return {"model.d_ff": nearest_d_ff(d_model, 2, feed_forward_parameters(d_model, 0, 1))}


def matched_ffn_depth(depth: int):
    """More layers and a smaller d_ff: as many parameters as the base."""

    def row(base: Config) -> dict:
        model = base.model
        parameters = feed_forward_parameters(model.d_model, model.d_ff, model.ffn_depth)
        return {"model.ffn_depth": depth, "model.d_ff": nearest_d_ff(model.d_model, depth, parameters)}

    return row


def no_wo_partner(base: Config) -> dict:
    """The base with half of its d_k: where d_k = d_v exactly as many parameters as without W_O."""
    d_k, d_v = base.model.head_widths
    return {"model.d_k": max(1, d_k - d_v // 2), "model.d_v": d_v}


def no_wo_matched(base: Config) -> dict:
    """Without W_O, and its parameters spent on d_ff."""
    model = base.model
    d_v = model.head_widths[1]
    attentions = sum(model.depths.values())
    layers = sum(depth for place, depth in model.depths.items() if place != "cross")  # each with one feed-forward
    removed = attentions * model.num_heads * d_v * model.d_model
    return {OUTPUT_PROJECTION: "none", "model.d_ff": model.d_ff + round(removed / (layers * (2 * model.d_model + 1)))}


def wide_heads(factor: int):
    """Queries and keys so many times as wide: the paper expects more of the scaling factor there (Section 3.2.1)."""

    def row(base: Config) -> dict:
        d_k, d_v = base.model.head_widths
        return {"model.d_k": factor * d_k, "model.d_v": d_v}

    return row


def without_scale(row):
    """The same with no scaling factor."""
    return lambda base: row(base) | {SCALE: "none"}


ROWS = {
    "base": {},
    # Table 3, row A: the number of heads at the same d_model, so at the same number of parameters.
    "heads_1": {"model.num_heads": 1},
    "heads_2": {"model.num_heads": 2},
    "heads_4": {"model.num_heads": 4},
    "heads_8": {"model.num_heads": 8},
    "heads_16": {"model.num_heads": 16},
    "heads_32": {"model.num_heads": 32},
    "heads_1_fixed_d_k": fixed_d_k(1),
    "heads_4_fixed_d_k": fixed_d_k(4),
    "heads_16_fixed_d_k": fixed_d_k(16),
    "heads_32_fixed_d_k": fixed_d_k(32),
    # The feed-forward network: its depth, its non-linearity, itself.
    "ffn_depth_1": {"model.ffn_depth": 1},
    "ffn_depth_1_partner": ffn_depth_1_partner,
    "ffn_depth_3": {"model.ffn_depth": 3},
    "ffn_depth_3_matched": matched_ffn_depth(3),
    "ffn_depth_4": {"model.ffn_depth": 4},
    "ffn_depth_4_matched": matched_ffn_depth(4),
    "ffn_gelu": {"model.feed_forward": "gelu"},
    "ffn_linear": {"model.feed_forward": "linear"},
    "ffn_swiglu": {"model.feed_forward": "swiglu"},
    "ffn_geglu": {"model.feed_forward": "geglu"},
    "ffn_none": {"model.feed_forward": "none"},
    # The factor before the softmax.
    "scale_none": {SCALE: "none"},
    "scale_inv_d_k": {SCALE: "inv_d_k"},
    "scale_learned": {SCALE: "learned"},
    "wide_heads": wide_heads(4),
    "wide_heads_scale_none": without_scale(wide_heads(4)),
    "wider_heads": wide_heads(16),
    "wider_heads_scale_none": without_scale(wide_heads(16)),
    # W_O.
    "no_wo": {OUTPUT_PROJECTION: "none"},
    "no_wo_partner": no_wo_partner,
    "no_wo_matched": no_wo_matched,
    "no_wo_no_wv": {OUTPUT_PROJECTION: "none", PROJECTIONS: "no_value"},
    # W_Q, W_K and W_V.
    "no_wq": {PROJECTIONS: "no_query"},
    "no_wk": {PROJECTIONS: "no_key"},
    "no_wv": {PROJECTIONS: "no_value"},
    "no_projections": {PROJECTIONS: "none"},
    "shared_wq_wk": {PROJECTIONS: "shared_query_key"},
    "shared_wk_wv": {PROJECTIONS: "shared_key_value"},
    "shared_wq_wk_wv": {PROJECTIONS: "shared"},
    "hidden_projections": {PROJECTIONS: "hidden"},
    # How scores are computed, and how they become weights.
    "score_bilinear": {"model.attention.score": "bilinear"},
    "score_additive": {"model.attention.score": "additive"},
    "score_cosine": {"model.attention.score": "cosine"},
    "qk_rms_norm": {"model.attention.qk_norm": "rms_norm"},
    "weights_sigmoid": {WEIGHTS: "sigmoid"},
    "weights_sparsemax": {WEIGHTS: "sparsemax"},
    "weights_off_by_one": {WEIGHTS: "softmax_off_by_one"},
    "weights_uniform": {WEIGHTS: "uniform"},
    "cross_weights_uniform": {"model.attention.cross.weights": "uniform"},
    # Later kinds of attention.
    "linear_attention": {"model.attention.score": "elu", WEIGHTS: "proportional"},
    "talking_heads": {WEIGHTS: "talking_heads"},
    "multi_query": {PROJECTIONS: "grouped"},
    "grouped_query": {PROJECTIONS: "grouped(groups=2)"},
    "local": {f"model.attention.{place}.window": 4 for place in ("encoder", "decoder")},
    # Positions.
    "positions_learned": {POSITIONS: "learned"},
    "positions_none": {POSITIONS: "none"},
    "positions_index": {POSITIONS: "index(divisor=1.0)"},
    "positions_index_over_100": {POSITIONS: "index(divisor=100.0)"},
    "positions_log_index": {POSITIONS: "log_index"},
    "positions_rotary": {POSITIONS: "rotary"},
    "positions_t5": {POSITIONS: "t5"},
    "positions_shaw": {POSITIONS: "shaw"},
    "positions_alibi": {POSITIONS: "alibi"},
    "positions_transformer_xl": {POSITIONS: "transformer_xl"},
    # Residual connections and normalisation.
    "pre_norm": {"model.residual": "pre_norm"},
    "no_residual": {"model.residual": "none"},
    "rms_norm": {"model.norm": "rms_norm"},
    "no_norm": {"model.norm": "none"},
    # Embeddings.
    "tied_decoder": {"model.embedding.tying": "decoder"},
    "untied": {"model.embedding.tying": "none"},
    "embedding_scale_one": {"model.embedding.scale": "one"},
    # The mask of the decoder.
    "unmasked": {"model.decoder_mask": "none"},
    # What is evaluated.
    "averaged": {"evaluate.checkpoint": "average:5"},
    "best_checkpoint": {"evaluate.checkpoint": "best"},
    "ema": {"optimizer.ema_decay": 0.99},
}

PARTNERS = {
    "ffn_depth_1": "ffn_depth_1_partner",
    "ffn_depth_3_matched": "base",
    "ffn_depth_4_matched": "base",
    "no_wo": "no_wo_partner",
    "no_wo_matched": "base",
    "scale_none": "base",
    "wide_heads_scale_none": "wide_heads",
    "wider_heads_scale_none": "wider_heads",
}

NOTES = {
    f"heads_{n}_fixed_d_k": "confounded with size: at fixed d_k more heads are more parameters" for n in (1, 4, 16, 32)
}
