"""Recurrent networks against the formulas of their papers in NumPy, a sentence at a time, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.errors import UserError
from transformer_jax.models import build
from transformer_jax.models.build import build_model
from transformer_jax.vocabulary import BOS

RECURRENT = {"model.family": "recurrent"}
CASES = {
    "Bahdanau": {},
    "Luong, general": {
        "model.context": "luong",
        "model.bidirectional": False,
        "model.num_decoder_layers": 1,
        "model.attention.score": "bilinear",
        "model.attention.projections": "none",
    },
    "fixed": {"model.context": "fixed", "model.cell": "vanilla", "model.num_decoder_layers": 1},
    "GNMT": {
        "model.cell": "lstm",
        "model.residual": "post_norm",
        "model.num_encoder_layers": 3,
        "model.num_decoder_layers": 2,
    },
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def cell(kind, p, state, x):
    """The next state: c and h of an LSTM (Hochreiter and Schmidhuber 1997), else h alone."""
    h = state[-1]
    if kind == "vanilla":
        return [np.tanh(dense(p["i"], x) + dense(p["h"], h))]
    gate = {name: dense(p[f"i{name}"], x) + dense(p[f"h{name}"], h) for name in ("ifgo" if kind == "lstm" else "rz")}
    if kind == "lstm":
        c = sigmoid(gate["f"]) * state[0] + sigmoid(gate["i"]) * np.tanh(gate["g"])
        return [c, sigmoid(gate["o"]) * np.tanh(c)]
    new = np.tanh(dense(p["in"], x) + sigmoid(gate["r"]) * dense(p["hn"], h))
    return [(1 - sigmoid(gate["z"])) * new + sigmoid(gate["z"]) * h]


def read(kind, p, x_SD, width, backwards=False):
    state, found = [np.zeros(width)] * (2 if kind == "lstm" else 1), []
    for x in x_SD[::-1] if backwards else x_SD:
        state = cell(kind, p["cell"], state, x)
        found.append(state[-1])
    return np.stack(found[::-1] if backwards else found)


def layers(p):
    """The parameters of each layer above the first."""
    depth = len(jax.tree.leaves(p)[0]) if p else 0
    return [jax.tree.map(lambda leaf, number=number: leaf[number], p) for number in range(depth)]


def attend(p, s, h_SD):
    """One head for each half of the vector; annotations and scores as the case has them."""
    if "cross_attention" not in p:
        return None
    p, (query, key, value) = p["cross_attention"], (s.reshape(1, 2, 4), *[h_SD.reshape(-1, 2, 4)] * 2)
    if "query" in p:
        query = np.einsum("d,dhk->hk", s, p["query"]["kernel"])[None]
        key = np.einsum("sd,dhk->shk", h_SD, p["key"]["kernel"])
        scores = np.einsum("shk,hk->sh", np.tanh(query + key), p["score_function"]["v"])
    else:
        scores = np.einsum("hk,hkl,shl->sh", query[0], p["score_function"]["kernel"], key)
    weights = np.exp(scores) / np.exp(scores).sum(0)
    return np.einsum("sh,shk->hk", weights, value).reshape(-1)


def by_hand(config, params, source, target):
    """float[T, C]: the logits of each token of one sentence."""
    model, p = config.model, jax.tree.map(np.asarray, params)
    table_CD = p["source_embedding"]["embedding"]
    x_SD, y_TD = table_CD[source] * 8**0.5, table_CD[[BOS, *target[:-1]]] * 8**0.5
    residual = model.residual == "post_norm"

    encoder = p["encoder"]
    if model.bidirectional:
        both = (read(model.cell, encoder[n], x_SD, 4, n == "backwards") for n in ("forwards", "backwards"))
        h_SD = np.concatenate(list(both), axis=1)
    else:
        h_SD = read(model.cell, encoder["forwards"], x_SD, 8)
    upper = layers(encoder.get("layers"))
    for layer in upper:
        h_SD = read(model.cell, layer["reader"], h_SD, 8) + residual * h_SD
    ended = h_SD[-1]
    if model.bidirectional and not upper:
        ended = np.concatenate([h_SD[-1, :4], h_SD[0, 4:]])

    decoder, context = p["decoder"], p["decoder"].get("context", {})
    writers = [decoder["writer"], *[layer["writer"] for layer in layers(decoder.get("layers"))]]
    states = [np.split(np.tanh(dense(w["initial"], ended)), 2 if model.cell == "lstm" else 1) for w in writers]
    logits = []
    for y in y_TD:
        before = {"bahdanau": lambda s: attend(context, s, h_SD), "fixed": lambda s: ended, "luong": lambda s: []}
        c, s = before[model.context](states[0][-1]), y
        for number, writer in enumerate(writers):
            states[number] = cell(model.cell, writer["cell"], states[number], np.concatenate([s, c]))
            s = states[number][-1] + residual * (number > 0) * s
        c = attend(context, s, h_SD) if model.context == "luong" else c
        logits.append(table_CD @ np.tanh(dense(decoder["combine"], np.concatenate([c, s]))))
    return np.stack(logits)


@pytest.mark.parametrize("case", CASES)
def test_the_logits_of_each_paper_by_hand(case):
    config = tiny.config({**RECURRENT, **CASES[case]})
    params = tiny.params(config)
    batch = {"inputs": tiny.sentences([3, 1], 3), "targets": tiny.sentences([2, 3], 3, seed=1)}
    found = tiny.logits(config, params, batch)
    for row in range(2):
        source, target = (batch[side][row][batch[side][row] != 0] for side in ("inputs", "targets"))
        expected = by_hand(config, params, source, target)
        np.testing.assert_allclose(found[row, : len(target)], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["Bahdanau", "Luong, general"])
def test_hypotheses_of_one_example_are_apart(case):
    """Each of three an example, with the tokens that it reads, gives the logits that it gives alone."""
    config = tiny.config({**RECURRENT, **CASES[case]})
    model, params = build_model(config.model), tiny.params(config)
    sources, tokens_NT = jnp.asarray(tiny.sentences([3, 2], 3)), np.random.default_rng(0).integers(4, 11, (6, 2))

    def after(sources, width):
        context, cache = model.start(params, {"inputs": sources}, width, 2)
        return model.read(params, jnp.asarray(tokens_NT), context, cache)[0]

    with jax.disable_jit():
        together, alone = after(sources, 3), after(jnp.repeat(sources, 3, axis=0), 1)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert not np.allclose(together[0], together[3])


def test_two_directions_need_an_even_width():
    heads = {"model.num_heads": 3}
    with pytest.raises(UserError, match=r"model\.d_model = 9 is odd.*model\.bidirectional"):
        build.check(tiny.config({**RECURRENT, **heads, "model.d_model": 9}))
    build.check(tiny.config({**RECURRENT, **heads, "model.d_model": 9, "model.bidirectional": False}))
