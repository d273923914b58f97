"""Encoder and decoder as recurrent networks: what came before the Transformer.

Cho et al. 2014 read a sentence into one vector. In Bahdanau et al. 2015 the decoder attends to all states of an encoder
that reads from both ends, and takes what it finds into its next step; in Luong et al. 2015 it attends after the step.
Wu et al. 2016 ("GNMT") stack layers, with residual connections.

B examples, N sequences: when they are written, W hypotheses of each example one behind the other, else one. S source
length, T target length, D d_model, C vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.config import Config, RecurrentConfig
from transformer_jax.errors import UserError
from transformer_jax.models.attention import KeysValues
from transformer_jax.models.masks import relate, segment_mask
from transformer_jax.models.parts import Parts
from transformer_jax.models.residual import AddNorm, no_residual
from transformer_jax.models.stack import each_layer
from transformer_jax.models.tokens import Batch, Tokens, shift_right, tokens_of
from transformer_jax.models.transformer import tables
from transformer_jax.registry import demands

State = Any
"""What a cell hands on to its next step: h, or (c, h) of an LSTM; [N, D] each."""
CELLS: Mapping[str, Callable[..., nn.RNNCellBase]] = {
    "gru": nn.GRUCell,
    "lstm": nn.OptimizedLSTMCell,
    "vanilla": nn.SimpleCell,
}


def no_state(cell: nn.RNNCellBase, rows: int) -> State:
    """A state of zeros."""
    state = cell.initialize_carry(jax.random.key(0), (rows, 1))
    return jax.tree.map(lambda part: part.astype(cell.dtype), state)


def hidden(state: State) -> jax.Array:
    """The h of a state."""
    return jax.tree.leaves(state)[-1]


def joined(*vectors: jax.Array) -> jax.Array:
    """[a; b], as the papers write it."""
    return jnp.concatenate(vectors, axis=-1)


def recur(
    step: Callable[[Any, State, Any], tuple[State, Any]],
    module: nn.Module,
    state: State,
    begins_NT: jax.Array,
    first: State,
    inputs: Any,
    reverse: bool = False,
) -> tuple[State, Any]:
    """The state and the outputs after ``step(module, state, inputs_t) -> (state, output_t)`` for t = 1, ..., T.

    Args:
      state: the one before the first step, [N, D].
      begins_NT: where a sentence begins. The state before it is `first`, [N, T, D], there.
      inputs: any arrays [N, T, ...].
      reverse: for t = T, ..., 1.
    """

    def step_of_sentence(module: Any, state: State, at_t: Any) -> tuple[State, Any]:
        begins_N, first, inputs = at_t
        state = jax.tree.map(lambda new, old: jnp.where(begins_N[:, None], new, old), first, state)
        return step(module, state, inputs)

    scan = nn.scan(
        step_of_sentence,
        variable_broadcast=["params", "heads"],
        variable_axes={"intermediates": 2},
        split_rngs={"params": False, "dropout": True},
        in_axes=1,
        out_axes=1,
        reverse=reverse,
    )
    return scan(module, state, (begins_NT, first, inputs))


def starts(tokens: Tokens) -> jax.Array:
    """bool[B, T]: where a sentence begins."""
    return tokens.positions == 0


def ends(tokens: Tokens) -> jax.Array:
    """bool[B, T]: where a sentence ends."""
    return tokens.segments != jnp.pad(tokens.segments[:, 1:], [(0, 0), (0, 1)])


# --- The encoder: h_s = f(h_{s-1}, x_s) ---


class Reader(nn.Module):
    """The states of a cell that reads sentences, forwards or backwards."""

    parts: Parts[RecurrentConfig]
    width: int
    reverse: bool = False

    def setup(self) -> None:
        self.cell = CELLS[self.parts.config.cell](self.width, dtype=self.parts.dtype)

    def __call__(self, x_BSD: jax.Array, source: Tokens) -> jax.Array:
        state = no_state(self.cell, x_BSD.shape[0])
        nothing = jax.tree.map(lambda part: jnp.zeros((1, x_BSD.shape[1], self.width), part.dtype), state)
        begins_BS = ends(source) if self.reverse else starts(source)

        def step(reader: Reader, state: State, x_BD: jax.Array) -> tuple[State, jax.Array]:
            return reader.cell(state, x_BD)

        return recur(step, self, state, begins_BS, nothing, x_BSD, self.reverse)[1]


class EncoderLayer(nn.Module):
    """A layer above the first."""

    parts: Parts[RecurrentConfig]

    def setup(self) -> None:
        self.reader = Reader(self.parts, self.parts.config.d_model)
        self.add_norm = self.parts.add_norm("recurrence")

    def __call__(self, h_BSD: jax.Array, source: Tokens) -> jax.Array:
        return self.add_norm(h_BSD, lambda h_BSD: self.reader(h_BSD, source))


class Encoder(nn.Module):
    """Layers that read the source, perhaps the first from both ends (Bahdanau, Section 3.2; GNMT, Figure 3)."""

    parts: Parts[RecurrentConfig]

    def setup(self) -> None:
        config = self.parts.config
        width = config.d_model // 2 if config.bidirectional else config.d_model
        self.forwards = Reader(self.parts, width)
        self.backwards = Reader(self.parts, width, reverse=True)
        self.add_norm = AddNorm(no_residual, self.parts.norm, self.parts.dropout)
        self.layers = EncoderLayer(self.parts)
        self.norm = self.parts.final_norm()

    def __call__(self, x_BSD: jax.Array, source: Tokens) -> jax.Array:
        """[B, S, D]: the annotations, [forwards; backwards] where there is one layer that reads from both ends."""
        depth = self.parts.config.num_encoder_layers
        directions = (self.forwards, self.backwards) if self.parts.config.bidirectional else (self.forwards,)
        h_BSD = self.add_norm(x_BSD, lambda x_BSD: joined(*[reader(x_BSD, source) for reader in directions]))
        if depth == 1:
            return h_BSD
        h_BSD = each_layer(lambda layer, h_BSD: layer(h_BSD, source), self.layers, h_BSD, depth - 1, self.parts.remat)
        return self.norm(h_BSD)

    def last(self, h_BSD: jax.Array, source: Tokens) -> jax.Array:
        """[B, S, D]: what each direction has read a sentence to, at the place where it stopped; 0 elsewhere."""
        config = self.parts.config
        backwards = config.d_model // 2 if config.bidirectional and config.num_encoder_layers == 1 else 0
        reads_forwards_D = jnp.arange(config.d_model) < config.d_model - backwards
        stops_BSD = jnp.where(reads_forwards_D, ends(source)[:, :, None], starts(source)[:, :, None])
        return jnp.where(stops_BSD, h_BSD, 0)


# --- The context c_t ---


class Memory(NamedTuple):
    """What the decoder has of the source, arrays [B, ...] all.

    source: its tokens.
    last_BSD: see `Encoder.last`.
    keys_values: of the annotations; None where nothing attends to them.
    """

    source: Tokens
    last_BSD: jax.Array
    keys_values: KeysValues | None

    def by_example(self, x_NT: jax.Array) -> jax.Array:
        """[B, W T, ...]: the sequences of an example one behind the other."""
        return x_NT.reshape(self.source.ids.shape[0], -1, *x_NT.shape[2:])

    def ended(self, target: Tokens) -> jax.Array:
        """[N, T, D]: what the encoder ended with, of the sentence that each token of the target translates."""
        own_BTS = segment_mask(self.by_example(target.segments), self.source.segments)[:, 0]
        ended_BTD = jnp.einsum("BTS,BSD->BTD", own_BTS.astype(self.last_BSD.dtype), self.last_BSD)
        return ended_BTD.reshape(*target.ids.shape, -1)


class Fixed(nn.Module):
    """c_t = c: the decoder is told at each step what the encoder ended with (Cho et al. 2014)."""

    parts: Parts[RecurrentConfig]

    def keys_values(self, h_BSD: jax.Array, source: Tokens) -> KeysValues | None:
        """What is attended to."""
        return None

    def before(self, s_ND: jax.Array, given_ND: jax.Array, token: Tokens, memory: Memory) -> jax.Array:
        """What enters step t beside x_t, after the state s_{t-1}."""
        return given_ND

    def after(self, s_NTD: jax.Array, c_NTD: jax.Array, target: Tokens, memory: Memory) -> jax.Array:
        """The context, where the states are s_t and c_t is what entered their steps."""
        return c_NTD


class Bahdanau(Fixed):
    """c_t = sum_s alpha_ts h_s, with alpha_t from the score of s_{t-1} and each h_s (Bahdanau, Eq. 5 and 6)."""

    def setup(self) -> None:
        self.cross_attention = self.parts.attention("cross")

    def keys_values(self, h_BSD: jax.Array, source: Tokens) -> KeysValues:
        return self.cross_attention.project(h_BSD, source.positions)

    def before(self, s_ND: jax.Array, given_ND: jax.Array, token: Tokens, memory: Memory) -> jax.Array:
        return self.attend(s_ND[:, None], Tokens(*(part[:, None] for part in token)), memory)[:, 0]

    def attend(self, s_NTD: jax.Array, target: Tokens, memory: Memory) -> jax.Array:
        """[N, T, D]: what the states find in the annotations."""
        assert memory.keys_values is not None
        relation = relate(Tokens(*map(memory.by_example, target)), memory.source)
        found_BTD = self.cross_attention.attend(memory.by_example(s_NTD), memory.keys_values, relation)
        return found_BTD.reshape(s_NTD.shape)


class Luong(Bahdanau):
    """The same with s_t itself: nothing but x_t enters a step (Luong, Section 3.1, without input feeding)."""

    def before(self, s_ND: jax.Array, given_ND: jax.Array, token: Tokens, memory: Memory) -> jax.Array:
        return given_ND[:, :0]

    def after(self, s_NTD: jax.Array, c_NTD: jax.Array, target: Tokens, memory: Memory) -> jax.Array:
        return self.attend(s_NTD, target, memory)


CONTEXTS: Mapping[str, Callable[[Parts[RecurrentConfig]], Fixed]] = {
    "bahdanau": Bahdanau,
    "luong": Luong,
    "fixed": Fixed,
}


# --- The decoder: s_t = f(s_{t-1}, [x_t; c_t]) ---


class Writer(nn.Module):
    """The states of a cell that writes sentences, each from s_0 = tanh(W_s h) on, h what the encoder ended with.

    (Bahdanau, Section A.2.2.) While a sentence is written token by token, the state lies in the collection "cache".
    """

    parts: Parts[RecurrentConfig]
    context: Fixed

    def setup(self) -> None:
        self.cell = CELLS[self.parts.config.cell](self.parts.config.d_model, dtype=self.parts.dtype)
        self.initial = dense(self.parts, len(jax.tree.leaves(no_state(self.cell, 1))) * self.parts.config.d_model)

    def __call__(
        self, x_NTD: jax.Array, given_NTD: jax.Array, ended_NTD: jax.Array, target: Tokens, memory: Memory
    ) -> tuple[jax.Array, jax.Array]:
        """The states, and the context that entered their steps."""

        def step(writer: Writer, state: State, at_t: Any) -> tuple[State, Any]:
            x_ND, given_ND, token = at_t
            c_ND = writer.context.before(hidden(state), given_ND, token, memory)
            state, s_ND = writer.cell(state, joined(x_ND, c_ND))
            return state, (s_ND, c_ND)

        state = self.get_variable("cache", "state", no_state(self.cell, x_NTD.shape[0]))
        state, outputs = recur(step, self, state, starts(target), self.first(ended_NTD), (x_NTD, given_NTD, target))
        if self.has_variable("cache", "state"):
            self.put_variable("cache", "state", state)
        return outputs

    def first(self, ended_NTD: jax.Array) -> State:
        """s_0 of the sentence that each token belongs to."""
        parts, structure = jax.tree.flatten(no_state(self.cell, 1))
        return jax.tree.unflatten(structure, jnp.split(jnp.tanh(self.initial(ended_NTD)), len(parts), axis=-1))

    def reserve(self, rows: int) -> None:
        """Makes room for the state of so many sentences."""
        self.put_variable("cache", "state", no_state(self.cell, rows))


class DecoderLayer(nn.Module):
    """A layer above the first: the context that the first has found enters its steps too (GNMT, Section 3)."""

    parts: Parts[RecurrentConfig]

    def setup(self) -> None:
        self.writer = Writer(self.parts, Fixed(self.parts))
        self.add_norm = self.parts.add_norm("recurrence")

    def __call__(
        self, s_NTD: jax.Array, c_NTD: jax.Array, ended_NTD: jax.Array, target: Tokens, memory: Memory
    ) -> jax.Array:
        return self.add_norm(s_NTD, lambda s_NTD: self.writer(s_NTD, c_NTD, ended_NTD, target, memory)[0])


class Decoder(nn.Module):
    """Layers that write the target, between the embedding and the softmax."""

    parts: Parts[RecurrentConfig]

    def setup(self) -> None:
        self.context = CONTEXTS[self.parts.config.context](self.parts)
        self.writer = Writer(self.parts, self.context)
        self.add_norm = AddNorm(no_residual, self.parts.norm, self.parts.dropout)
        self.layers = DecoderLayer(self.parts)
        self.norm = self.parts.final_norm()
        self.combine = dense(self.parts, self.parts.config.d_model)

    def __call__(self, x_NTD: jax.Array, target: Tokens, memory: Memory) -> jax.Array:
        """[N, T, D]: tanh(W_c [c_t; s_t]) (Luong, Eq. 5)."""
        depth, ended_NTD = self.parts.config.num_decoder_layers, memory.ended(target)
        s_NTD, c_NTD = self.writer(x_NTD, ended_NTD, ended_NTD, target, memory)
        s_NTD = self.add_norm(s_NTD, lambda s_NTD: s_NTD)

        def call(layer: DecoderLayer, s_NTD: jax.Array) -> jax.Array:
            return layer(s_NTD, c_NTD, ended_NTD, target, memory)

        if depth > 1:
            s_NTD = self.norm(each_layer(call, self.layers, s_NTD, depth - 1, self.parts.remat))
        c_NTD = self.context.after(s_NTD, c_NTD, target, memory)
        return jnp.tanh(self.combine(joined(c_NTD, s_NTD)))

    def start(self, rows: int) -> None:
        """Makes room for what is kept of so many sentences."""
        depth = self.parts.config.num_decoder_layers
        self.writer.reserve(rows)
        if depth > 1:
            each_layer(lambda layer, _: layer.writer.reserve(rows), self.layers, None, depth - 1)


def dense(parts: Parts[RecurrentConfig], width: int) -> nn.Dense:
    """A linear layer with a bias."""
    return nn.Dense(width, dtype=parts.dtype, kernel_init=nn.initializers.xavier_uniform())


def _two_directions_fit(config: Config) -> None:
    model = config.model
    assert isinstance(model, RecurrentConfig)
    if model.bidirectional and model.d_model % 2:
        raise UserError(
            f"model.d_model = {model.d_model} is odd, and each direction of model.bidirectional has half of it: choose "
            "an even one, or set model.bidirectional to false."
        )


@demands(_two_directions_fit)
class Recurrent(nn.Module):
    """An encoder-decoder of recurrent networks."""

    parts: Parts[RecurrentConfig]

    def setup(self) -> None:
        self.source_embedding, self.target_embedding, self.softmax = tables(self.parts)
        self.dropout = self.parts.dropout()
        self.encoder = Encoder(self.parts)
        self.decoder = Decoder(self.parts)
        self.output_bias = self.parts.output_bias()

    def __call__(self, batch: Batch) -> jax.Array:
        """float32[B, T, C]: the logits of each of the targets, given the inputs and the targets before it."""
        return self._logits(shift_right(tokens_of(batch, "targets")), self.encode(tokens_of(batch, "inputs")))

    def encode(self, source: Tokens) -> Memory:
        """What the decoder will have of the source."""
        source = Tokens(*(jnp.broadcast_to(part, source.ids.shape) for part in source))
        h_BSD = self.encoder(self.dropout(self.source_embedding(source.ids)), source)
        return Memory(source, self.encoder.last(h_BSD, source), self.decoder.context.keys_values(h_BSD, source))

    def _logits(self, target: Tokens, memory: Memory) -> jax.Array:
        target = Tokens(*(jnp.broadcast_to(part, target.ids.shape) for part in target))
        x_NTD = self.decoder(self.dropout(self.target_embedding(target.ids)), target, memory)
        return self.output_bias(self.softmax.logits(x_NTD))

    # --- Token by token: what is kept between calls lies in the collections "context" and "cache" ---

    def start(self, batch: Batch, width: int, length: int) -> None:
        """Reads the inputs, each for `width` hypotheses, whatever their length."""
        memory = self.encode(tokens_of(batch, "inputs"))
        self.put_variable("context", "memory", memory)
        self.put_variable("cache", "length", jnp.zeros((), jnp.int32))
        self.decoder.start(width * memory.source.ids.shape[0])

    def step(self, tokens_NT: jax.Array) -> jax.Array:
        """float32[N, T, C]: the logits of the token that follows each of these, which follow those of earlier steps."""
        length: jax.Array = self.get_variable("cache", "length")
        self.put_variable("cache", "length", length + tokens_NT.shape[1])
        target = Tokens(tokens_NT, length + jnp.arange(tokens_NT.shape[1])[None], jnp.ones_like(tokens_NT))
        return self._logits(target, self.get_variable("context", "memory"))
