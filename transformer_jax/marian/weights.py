"""Parameters as the state of Hugging Face's `MarianMTModel`, and back. Exact, but for what is said here.

*Axes.* Marian's sinusoids have all sines first, then all cosines; ours alternate. Every axis of the residual stream is
permuted, after which the model computes the same. Heads and hidden units stay where they are.

*Start.* Marian begins to write with the row of padding, which is zero in published models; ours with BOS, which has a
row of its own. Going out, the row of padding is zero and that of BOS is added to the decoder's first position, which is
stored then. Coming in, BOS has the row that Marian starts with, and what its first position has beyond the sinusoid.

*Logits.* A token that is never written is left out of the softmax by a bias of NEVER: going out padding, unless it is
zero as Marian's, and BOS, which has no id there; coming in BOS.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from transformer_jax.config import Config, TransformerConfig, value_at
from transformer_jax.errors import UserError
from transformer_jax.run.imported import Tensors
from transformer_jax.vocabulary import BOS, EOS, NUM_SPECIALS, PAD, UNK

State = dict[str, npt.NDArray]
Params = dict[str, Any]
NEVER = -100.0
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
TABLE, BIAS = "model.shared.weight", "final_logits_bias"
SUBLAYERS = {
    "encoder": (("self_attention", "self_attn"),),
    "decoder": (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")),
}
"""Stack -> the attentions of its layers, ours and theirs, in their order."""
SAME_POSITION, NOISE = 1e-3, 1e-6
"""By how much a stored sinusoid may differ from ours (some are stored in 16 bits), and what is rounding in any case."""


def order_of_ids(vocab_size: int) -> npt.NDArray:
    """Our ids in the order of Marian's: end of sentence first, padding last; BOS has none."""
    return np.asarray([EOS, UNK, *range(NUM_SPECIALS, vocab_size), PAD])


def order_of_axes(d_model: int) -> npt.NDArray:
    """Our axes of the residual stream in the order of Marian's: sines, then cosines."""
    return np.concatenate([np.arange(0, d_model, 2), np.arange(1, d_model, 2)])


def positions_name(stack: str) -> str:
    """The name of the stored sinusoids of a stack."""
    return f"model.{stack}.embed_positions.weight"


def sinusoids(count: int, d_model: int) -> npt.NDArray:
    """float32[count, d_model]: Marian's, sines first."""
    angles = np.arange(count)[:, None] / 10000.0 ** (np.arange(0, d_model, 2) / d_model)
    return np.concatenate([np.sin(angles), np.cos(angles[:, : d_model // 2])], axis=1).astype(np.float32)


def to_state(config: Config, params: Params, positions: int) -> State:
    """The state of the model of `settings.to_settings(config)`, which has so many positions."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    axes, scale = order_of_axes(config.model.d_model), _scale(config)
    table = params["source_embedding"]["embedding"][:, axes]
    bias = params["output_bias"]["bias"] if "output_bias" in params else np.zeros(len(table), np.float32)
    start, padding_is_zero = table[BOS], not table[PAD].any()
    ids = order_of_ids(len(table))
    table, bias = table[ids], bias[ids]
    if not padding_is_zero:
        table[-1], bias[-1] = 0.0, NEVER
    state = {TABLE: table, BIAS: bias[None]}
    if start.any():
        stored = sinusoids(positions, config.model.d_model)
        state |= {positions_name("encoder"): stored.copy(), positions_name("decoder"): stored}
        stored[0] += scale * start
    for stack in SUBLAYERS:
        layers = params[stack]["layers"]
        for number in range(config.model.depths[stack]):
            layer = jax.tree.map(lambda leaf, number=number: leaf[number], layers)
            state |= _layer_state(layer, stack, f"model.{stack}.layers.{number}", axes)
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def _layer_state(layer: Params, stack: str, of: str, axes: npt.NDArray) -> State:
    state = {}
    norms = iter(range(1, 4))
    for ours, theirs in SUBLAYERS[stack]:
        for part, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            kernel = layer[ours][part]["kernel"].reshape(len(axes), -1)[axes]
            state[f"{of}.{theirs}.{name}.weight"] = kernel.T
            state[f"{of}.{theirs}.{name}.bias"] = _bias(layer[ours][part], kernel.shape[1])
        out = layer[ours]["out"]
        state[f"{of}.{theirs}.out_proj.weight"] = out["kernel"].reshape(-1, len(axes))[:, axes].T
        state[f"{of}.{theirs}.out_proj.bias"] = _bias(out, len(axes))[axes]
        state |= _norm_state(layer[f"add_norm_{next(norms)}"], f"{of}.{theirs}_layer_norm", axes)
    first, second = layer["feed_forward"]["linear_1"], layer["feed_forward"]["linear_2"]
    state[f"{of}.fc1.weight"], state[f"{of}.fc1.bias"] = first["kernel"][axes].T, first["bias"]
    state[f"{of}.fc2.weight"], state[f"{of}.fc2.bias"] = second["kernel"][:, axes].T, second["bias"][axes]
    return state | _norm_state(layer[f"add_norm_{next(norms)}"], f"{of}.final_layer_norm", axes)


def _bias(linear: Params, width: int) -> npt.NDArray:
    return linear["bias"].reshape(-1) if "bias" in linear else np.zeros(width, np.float32)


def _norm_state(add_norm: Params, of: str, axes: npt.NDArray) -> State:
    return {f"{of}.weight": add_norm["norm"]["scale"][axes], f"{of}.bias": add_norm["norm"]["bias"][axes]}


class _Reader(Tensors):
    """Tensors of a Marian model, with our order of the axes."""

    def __init__(self, state: Mapping[str, npt.NDArray], config: Config, where: object):
        super().__init__(state, where)
        model = config.model
        assert isinstance(model, TransformerConfig)
        self.width, self.heads, self.hidden = model.d_model, model.num_heads, model.d_ff
        self._axes = np.argsort(order_of_axes(model.d_model))

    def take(self, name: str, *shape: int, residual: int | None = None) -> npt.NDArray:
        """The tensor; `residual` says which of its axes is that of the residual stream."""
        found = super().take(name, *shape)
        return found if residual is None else np.take(found, self._axes, axis=residual)

    def attention(self, of: str) -> Params:
        """One of a layer's attentions."""
        parts: Params = {}
        for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            kernel = self.take(f"{of}.{theirs}.weight", self.width, self.width, residual=1).T
            bias = self.take(f"{of}.{theirs}.bias", self.width)
            parts[ours] = {"kernel": kernel.reshape(self.width, self.heads, -1), "bias": bias.reshape(self.heads, -1)}
        kernel = self.take(f"{of}.out_proj.weight", self.width, self.width, residual=0).T
        bias = self.take(f"{of}.out_proj.bias", self.width, residual=0)
        return {**parts, "out": {"kernel": kernel.reshape(self.heads, -1, self.width), "bias": bias}}

    def norm(self, of: str) -> Params:
        """One of a layer's normalisations."""
        scale, bias = (self.take(f"{of}.{name}", self.width, residual=0) for name in ("weight", "bias"))
        return {"norm": {"scale": scale, "bias": bias}}

    def feed_forward(self, of: str) -> Params:
        """A layer's feed-forward network."""
        first = self.take(f"{of}.fc1.weight", self.hidden, self.width, residual=1).T
        second = self.take(f"{of}.fc2.weight", self.width, self.hidden, residual=0).T
        return {
            "linear_1": {"kernel": first, "bias": self.take(f"{of}.fc1.bias", self.hidden)},
            "linear_2": {"kernel": second, "bias": self.take(f"{of}.fc2.bias", self.width, residual=0)},
        }

    def layer(self, stack: str, of: str) -> Params:
        """A layer of a stack."""
        layer: Params = {}
        for number, (ours, theirs) in enumerate(SUBLAYERS[stack], 1):
            layer[ours] = self.attention(f"{of}.{theirs}")
            layer[f"add_norm_{number}"] = self.norm(f"{of}.{theirs}_layer_norm")
        layer[f"add_norm_{len(SUBLAYERS[stack]) + 1}"] = self.norm(f"{of}.final_layer_norm")
        return {**layer, "feed_forward": self.feed_forward(of)}


def to_params(config: Config, state: Mapping[str, npt.NDArray], ids: list[int], where: object) -> Params:
    """Parameters of a model of `settings.to_config`.

    Args:
      ids: Marian's ids in the order of ours: padding, unknown, the start, end of sentence, then all others.
      where: the file, for the sentence.

    Raises:
      UserError: a tensor is missing, has another shape, or is none of such a model.
    """
    reader, size = _Reader(state, config, where), len(ids) - 1
    table = reader.take(TABLE, size, reader.width, residual=1)[ids]
    table[BOS] += _beyond_sinusoids(config, state, where) / _scale(config)
    bias = reader.take(BIAS, 1, size)[0][ids]
    bias[BOS] = NEVER
    params = {"source_embedding": {"embedding": table}, "output_bias": {"bias": bias}}
    for stack in SUBLAYERS:
        layers = [reader.layer(stack, f"model.{stack}.layers.{n}") for n in range(config.model.depths[stack])]
        params[stack] = {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers)}
    for name in TIED:
        if name in state and not np.array_equal(state[name], state[TABLE]):
            raise UserError(f"{where}: {name} differs from {TABLE}: only models with one table can be read.")
    if unknown := sorted(reader.left - {*TIED, *map(positions_name, SUBLAYERS)}):
        raise UserError(f"{where}: {unknown[0]} is no tensor of a Marian model as config.json describes it.")
    return params


def _beyond_sinusoids(config: Config, state: Mapping[str, npt.NDArray], where: object) -> npt.NDArray:
    """What the decoder's first position has beyond the sinusoid, with our axes; 0 where none is stored."""
    width = config.model.d_model
    beyond = np.zeros(width, np.float32)
    for stack in [stack for stack in SUBLAYERS if positions_name(stack) in state]:
        stored = np.asarray(state[positions_name(stack)], np.float32)
        if stored.ndim != 2 or stored.shape[1] != width:
            raise UserError(f"{where}: {positions_name(stack)} has shape {stored.shape}, but d_model is {width}.")
        difference = stored - sinusoids(len(stored), width)
        if stack == "decoder":
            beyond = difference[0][np.argsort(order_of_axes(width))]
            beyond = np.where(np.abs(beyond) > NOISE, beyond, 0.0)
            difference = difference[1:]
        if np.any(np.abs(difference) > SAME_POSITION):
            raise UserError(f"{where}: {positions_name(stack)} are no sinusoids: only models with these can be read.")
    return beyond


def _scale(config: Config) -> float:
    scaled = value_at(config, "model.embedding.scale") == "sqrt_d_model"
    return config.model.d_model**0.5 if scaled else 1.0
