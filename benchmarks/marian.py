"""Our parameters as those of Hugging Face's Marian, which CTranslate2 reads too.

Marian is post-norm, with biases in attention (zeros here), one table for source, target and softmax, sinusoids whose
sines fill the first half of a vector, the cosines the second. Ours are interleaved, so that every axis of the residual
stream is permuted: the model computes the same.
"""

from typing import Any

import jax
import numpy as np

from transformer_jax.config import Config, attention_at
from transformer_jax.errors import UserError
from transformer_jax.vocabulary import BOS, EOS, PAD

ACTIVATIONS = {"relu": "relu", "gelu": "gelu"}


def marian_config(config: Config) -> dict[str, Any]:
    """What `transformers.MarianConfig` is made of.

    Raises:
      UserError: Marian cannot be what the config describes.
    """
    model = config.model
    wanted = {
        "model.family": (model.family, "transformer"),
        "model.residual": (model.residual, "post_norm"),
        "model.norm": (model.norm, "layer_norm"),
        "model.positions": (model.positions, "sinusoidal"),
        "model.embedding.tying": (model.embedding.tying, "three_way"),
        "model.embedding.output_bias": (model.embedding.output_bias, False),
        "model.ffn_depth": (model.ffn_depth, 2),
    }
    for place in ("encoder", "decoder", "cross"):
        slots = attention_at(model, place)
        paper = {"score": "dot", "scale": "inv_sqrt_d_k", "weights": "softmax", "projections": "linear"}
        paper |= {"output_projection": "linear", "qk_norm": "none", "use_bias": False}
        wanted |= {f"model.attention.{place}.{name}": (getattr(slots, name), value) for name, value in paper.items()}
    for field, (found, needed) in wanted.items():
        if found != needed:
            raise UserError(f"{field} = {found!r} is not what Marian computes: {needed!r}.")
    if model.feed_forward not in ACTIVATIONS or model.d_model != model.num_heads * (model.d_k or 0):
        raise UserError(f"model.feed_forward = {model.feed_forward!r}, or d_k, is not what Marian has.")
    return {
        "vocab_size": model.vocab_size,
        "d_model": model.d_model,
        "encoder_layers": model.num_encoder_layers,
        "decoder_layers": model.num_decoder_layers,
        "encoder_attention_heads": model.num_heads,
        "decoder_attention_heads": model.num_heads,
        "encoder_ffn_dim": model.d_ff,
        "decoder_ffn_dim": model.d_ff,
        "activation_function": ACTIVATIONS[model.feed_forward],
        "scale_embedding": model.embedding.scale == "sqrt_d_model",
        "max_position_embeddings": config.data.max_length + config.decode.max_extra_length + 2,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": None,
    }


def marian_state(params: Any) -> dict[str, np.ndarray]:
    """The state dict of `transformers.MarianMTModel`, without its sinusoids, which it makes itself."""
    params = jax.tree.map(np.asarray, params)
    table = params["source_embedding"]["embedding"]
    order = np.concatenate([np.arange(0, table.shape[1], 2), np.arange(1, table.shape[1], 2)])
    state = {"model.shared.weight": table[:, order], "final_logits_bias": np.zeros((1, len(table)), np.float32)}
    for stack, feed_forward in (("encoder", 2), ("decoder", 3)):
        layers = params[stack]["layers"]
        sublayers = {"self_attention": ("self_attn", 1)} | (
            {"cross_attention": ("encoder_attn", 2)} if stack == "decoder" else {}
        )
        for number in range(len(layers["add_norm_1"]["norm"]["scale"])):
            layer = jax.tree.map(lambda leaf, number=number: leaf[number], layers)
            of = f"model.{stack}.layers.{number}"
            for ours, (theirs, norm) in sublayers.items():
                state |= _attention(layer[ours], f"{of}.{theirs}", order)
                state |= _norm(layer[f"add_norm_{norm}"]["norm"], f"{of}.{theirs}_layer_norm", order)
            first, second = layer["feed_forward"]["linear_1"], layer["feed_forward"]["linear_2"]
            state |= {
                f"{of}.fc1.weight": first["kernel"][order].T,
                f"{of}.fc1.bias": first["bias"],
                f"{of}.fc2.weight": second["kernel"][:, order].T,
                f"{of}.fc2.bias": second["bias"][order],
            }
            state |= _norm(layer[f"add_norm_{feed_forward}"]["norm"], f"{of}.final_layer_norm", order)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in state.items()}


def _attention(params: Any, of: str, order: np.ndarray) -> dict[str, np.ndarray]:
    state = {}
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        kernel = params[ours]["kernel"].reshape(len(order), -1)
        state |= {f"{of}.{theirs}.weight": kernel[order].T, f"{of}.{theirs}.bias": np.zeros(kernel.shape[1])}
    out = params["out"]["kernel"].reshape(-1, len(order))
    return state | {f"{of}.out_proj.weight": out[:, order].T, f"{of}.out_proj.bias": np.zeros(len(order))}


def _norm(params: Any, of: str, order: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{of}.weight": params["scale"][order], f"{of}.bias": params["bias"][order]}
