"""What must hold for every entry of every slot: nobody sees the future or padding, packing and caching change nothing.

Each config of `tiny.covering()` holds many entries at once; a failure names them all.
"""

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.config import FAMILIES
from transformer_jax.models.build import build_model
from transformer_jax.models.positions import POSITIONS

EVERY_FAMILY = pytest.mark.parametrize("family", tiny.every_family(tiny.WRITING))
SELF_ATTENDING = pytest.mark.parametrize("family", [f for f in tiny.WRITING if "decoder" in FAMILIES[f]().places])
UNMASKED = pytest.mark.parametrize("family", [f for f in FAMILIES if "model.decoder_mask" in tiny.model_fields(f)])
COVERING = pytest.mark.parametrize(
    "overrides",
    [
        # The slots of attention are those of all; its own are few.
        row if {"model.context", "model.cell"} & row.keys() else pytest.param(row, marks=pytest.mark.long)
        for row in tiny.covering(["recurrent"])
    ]
    + tiny.covering([family for family in tiny.WRITING if family != "recurrent"]),
    ids=tiny.name,
)


def influence(config, params, batch, t):
    """Side after side: the tokens that are embedded, and the size of the gradient of the logits at `t` by each."""
    batch, sides = jax.tree.map(jnp.asarray, batch), inside.embedded(config, params, batch)
    weights_C = jnp.asarray(np.random.default_rng(5).normal(size=config.model.vocab_size), jnp.float32)

    def combination(added, params):
        with inside.added_to_embeddings(*added):
            logits = build_model(config.model).apply(params, batch)
        return jnp.sum(logits[:, t] @ weights_C)

    zeros = [jnp.zeros((*tokens.shape, config.model.d_model)) for tokens in sides]
    gradients = jax.jit(jax.grad(combination))(zeros, params)
    return [(tokens, np.abs(np.asarray(g)).sum(-1)) for tokens, g in zip(sides, gradients, strict=True)]


@COVERING
def test_logits_depend_on_every_token_up_to_theirs_and_on_no_other(overrides):
    """And on every word of the sides that are read before: all of a source."""
    config = tiny.config(overrides)
    batch, t = tiny.batch_of(config), 1
    *sources, (read_BT, target_BT) = influence(config, tiny.params(config), batch, t)
    predicts_B1 = batch["targets"][:, t, None] != 0  # the logits of padding are not used
    past_BT = (np.arange(read_BT.shape[1]) <= t) & predicts_B1
    sees_all = overrides.get("model.attention.weights") != "sparsemax"  # which leaves tokens out by its nature
    for tokens_BS, source_BS in sources:
        words_BS = (tokens_BS != 0) & predicts_B1
        assert np.all(source_BS[predicts_B1 & ~words_BS] == 0), "padding of the source is seen"
        assert np.all(source_BS[words_BS] > 0) or not sees_all
    assert predicts_B1.any()
    assert np.all(target_BT[predicts_B1 & ~past_BT] == 0), "a later token is seen"
    assert np.all(target_BT[past_BT] > 0) or not sees_all


@SELF_ATTENDING
@pytest.mark.parametrize("window", [0, 1, 3])
def test_a_window_hides_what_stands_further_away(family, window):
    """One layer: what a logit depends on is what its own position may attend to."""
    overrides = {"model.family": family, "model.attention.window": window}
    layers = {path: 1 for path in tiny.model_fields(family) if path.endswith("_layers")}
    config = tiny.config(overrides | layers)
    batch, t = tiny.batch_of(config), 4
    *_, (_, target_BT) = influence(config, tiny.params(config), batch, t)
    predicts_B, places = batch["targets"][:, t] != 0, np.arange(target_BT.shape[1])
    assert predicts_B.any()
    seen = np.broadcast_to((places <= t) & (places >= t - window), target_BT[predicts_B].shape)
    np.testing.assert_array_equal(target_BT[predicts_B] > 0, seen)


@UNMASKED
def test_without_its_mask_the_decoder_sees_the_answer(family):
    leaking = tiny.config({"model.family": family, "model.decoder_mask": "none"})
    batch, t = tiny.batch_of(leaking), 1
    *_, (_, target_BT) = influence(leaking, tiny.params(leaking), batch, t)
    predicts_B1 = (batch["targets"][:, t] != 0)[:, None]
    later = (np.arange(target_BT.shape[1]) > t) & (batch["targets"] != 0) & predicts_B1
    assert later.any()
    assert np.all(target_BT[later] > 0)
    assert np.all(target_BT[(batch["targets"] == 0) & predicts_B1] == 0)


@COVERING
def test_a_packed_row_gives_the_logits_of_its_sentences_alone(overrides):
    config = tiny.config(overrides)
    params, first, second = tiny.params(config), tiny.batch_of(config, seed=8), tiny.batch_of(config, seed=9)
    second = {side: rows[::-1] for side, rows in second.items()}  # of other lengths
    together = tiny.logits(config, params, packed([first, second]))
    starts = [np.zeros(4, int), (first["targets"] != 0).sum(-1)]
    for batch, start_B in zip((first, second), starts, strict=True):
        apart = tiny.logits(config, params, batch)
        for row, (start, length) in enumerate(zip(start_B, (batch["targets"] != 0).sum(-1), strict=True)):
            got = together[row, start : start + length]
            np.testing.assert_allclose(got, apart[row, :length], rtol=1e-4, atol=1e-4)


def packed(batches):
    """One batch whose row i holds the sentences that are row i of each of `batches`."""
    out = {}
    for side in batches[0]:
        width = sum(batch[side].shape[1] for batch in batches)
        rows = [pack([batch[side][row] for batch in batches], width) for row in range(4)]
        out |= {side + part: np.stack([r[i] for r in rows]) for i, part in enumerate(("", "_segments", "_positions"))}
    return out


def pack(sentences, width):
    """int32[3, width]: tokens, segments and positions of sentences one behind the other in one row."""
    words = [sentence[sentence != 0] for sentence in sentences]
    parts = [
        np.concatenate(words),
        np.concatenate([np.full(len(w), number) for number, w in enumerate(words, start=1)]),
        np.concatenate([np.arange(len(w)) for w in words]),
    ]
    return np.stack([np.pad(part, (0, width - len(part))) for part in parts]).astype(np.int32)


@COVERING
def test_decoding_step_by_step_gives_the_logits_of_the_whole(overrides):
    config = tiny.config(overrides)
    params, batch = tiny.params(config), tiny.batch_of(config)
    tokens = inside.embedded(config, params, batch)[-1]
    steps, held = inside.step_by_step(config, params, batch, tokens, max_length=7)
    whole = jax.jit(build_model(config.model).apply)(params, batch)
    real = batch["targets"] != 0
    np.testing.assert_allclose(steps[real], np.asarray(whole)[real], rtol=1e-4, atol=1e-4)
    assert held == tokens.shape[1]


@EVERY_FAMILY
def test_tokens_that_are_known_are_read_at_once(family):
    config = tiny.config({"model.family": family})
    params, batch = tiny.params(config), tiny.batch_of(config)
    tokens = inside.embedded(config, params, batch)[-1]
    steps, _ = inside.step_by_step(config, params, batch, tokens, max_length=7)
    at_once, held = inside.step_by_step(config, params, batch, tokens, max_length=7, at_once=3)
    np.testing.assert_allclose(at_once, steps, rtol=1e-4, atol=1e-4)
    assert held == tokens.shape[1]


ABSOLUTE = {"sinusoidal", "learned", "index", "log_index"}


@pytest.mark.parametrize("name", POSITIONS)
def test_relative_schemes_see_distances_alone_and_absolute_ones_where_a_token_stands(name):
    config = tiny.config({"model.positions": name})
    params, batch = tiny.params(config), tiny.batch()

    def logits(shift):
        sides = [jnp.asarray(batch[side]) for side in ("inputs", "targets")]
        source, target = ((shift + jnp.arange(x.shape[1])[None], jnp.minimum(x, 1)) for x in sides)
        with jax.disable_jit():
            return inside.logits(config, params, *sides, places=(source, target))

    assert np.allclose(logits(0), logits(7), rtol=1e-4, atol=1e-4) == (name not in ABSOLUTE)


@UNMASKED
def test_a_model_trained_without_mask_decodes_causally(family):
    leaking, causal = (tiny.config({"model.family": family, "model.decoder_mask": mask}) for mask in ("none", "causal"))
    params, batch = tiny.params(causal), tiny.batch_of(causal)
    assert not np.allclose(tiny.logits(leaking, params, batch), tiny.logits(causal, params, batch))
    tokens = np.full((4, 2), 5)
    steps = [inside.step_by_step(config, params, batch, tokens, 4)[0] for config in (leaking, causal)]
    np.testing.assert_array_equal(steps[0], steps[1])
