"""What must hold for every entry of every slot: nobody sees the future or padding, packing and caching change nothing.

Each config of `tiny.covering()` holds many entries at once; a failure names them all.
"""

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.models.positions import POSITIONS
from transformer_jax.models.tokens import shift_right, tokens_of

COVERING = pytest.mark.parametrize("overrides", tiny.covering(), ids=tiny.name)


def influence(config, params, batch, t):
    """float[B, S] and float[B, T]: size of the gradient of the logits at `t` by each source and target embedding."""
    batch = jax.tree.map(jnp.asarray, batch)
    rows, T = batch["targets"].shape
    S, D = batch["inputs"].shape[1], config.model.d_model
    weights_C = jnp.asarray(np.random.default_rng(5).normal(size=config.model.vocab_size), jnp.float32)
    decoder_inputs = shift_right(tokens_of(batch, "targets")).ids

    def combination(source_BSD, target_BTD, params):
        with inside.added_to_embeddings(source_BSD, target_BTD):
            logits = inside.logits(config, params, batch["inputs"], decoder_inputs)
        return jnp.sum(logits[:, t] @ weights_C)

    gradients = jax.jit(jax.grad(combination, (0, 1)))(jnp.zeros((rows, S, D)), jnp.zeros((rows, T, D)), params)
    return [np.abs(np.asarray(g)).sum(-1) for g in gradients]


@COVERING
def test_logits_depend_on_every_token_up_to_theirs_and_on_no_other(overrides):
    config = tiny.config(overrides)
    batch, t = tiny.batch(), 1
    source_BS, target_BT = influence(config, tiny.params(config), batch, t)
    decodes_B1 = batch["targets"][:, t, None] != 0  # the logits of padding are not used
    words_BS, past_BT = (batch["inputs"] != 0) & decodes_B1, (np.arange(5) <= t) & decodes_B1
    assert np.all(source_BS[decodes_B1 & ~words_BS] == 0), "padding of the source is seen"
    assert np.all(target_BT[decodes_B1 & ~past_BT] == 0), "a later token is seen"
    if overrides.get("model.attention.weights") != "sparsemax":  # which leaves tokens out by its nature
        assert np.all(source_BS[words_BS] > 0)
        assert np.all(target_BT[past_BT] > 0)


def test_without_its_mask_the_decoder_sees_the_answer():
    batch, t = tiny.batch(), 1
    leaking = tiny.config({"model.decoder_mask": "none"})
    _, target_BT = influence(leaking, tiny.params(leaking), batch, t)
    later = (np.arange(5) > t) & (batch["targets"] != 0) & (batch["targets"][:, t] != 0)[:, None]
    assert later.any()
    assert np.all(target_BT[later] > 0)
    assert np.all(target_BT[(batch["targets"] == 0) & (batch["targets"][:, t] != 0)[:, None]] == 0)


@COVERING
def test_a_packed_row_gives_the_logits_of_its_sentences_alone(overrides):
    config = tiny.config(overrides)
    params = tiny.params(config)
    lengths = [([3, 2, 1, 4], [2, 3, 1, 4]), ([3, 3, 4, 2], [3, 1, 4, 1])]
    alone = [{"inputs": tiny.sentences(i, 6, 8), "targets": tiny.sentences(t, 5, 9)} for i, t in lengths]
    together = tiny.logits(config, params, packed(alone))
    starts = [np.zeros(4, int), np.asarray(lengths[0][1])]
    for batch, start_B in zip(alone, starts, strict=True):
        apart = tiny.logits(config, params, batch)
        for row, (start, length) in enumerate(zip(start_B, (batch["targets"] != 0).sum(-1), strict=True)):
            got = together[row, start : start + length]
            np.testing.assert_allclose(got, apart[row, :length], rtol=1e-4, atol=1e-4)


def packed(batches):
    """One batch whose row i holds the sentences that are row i of each of `batches`."""
    out = {}
    for side, width in (("inputs", 6), ("targets", 5)):
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
    params, inputs, tokens = tiny.params(config), tiny.batch()["inputs"], tiny.sentences([3] * 4, 3, seed=7)
    steps, held = inside.step_by_step(config, params, inputs, tokens, max_length=4)
    whole = jax.jit(lambda params: inside.logits(config, params, inputs, tokens))(params)
    np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=1e-4)
    assert held == 3


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


def test_a_model_trained_without_mask_decodes_causally():
    leaking, causal = (tiny.config({"model.decoder_mask": mask}) for mask in ("none", "causal"))
    params = tiny.params(causal)
    batch = tiny.batch()
    assert not np.allclose(tiny.logits(leaking, params, batch), tiny.logits(causal, params, batch))
    tokens = np.full((4, 2), 5)
    steps = [inside.step_by_step(config, params, batch["inputs"], tokens, 4)[0] for config in (leaking, causal)]
    np.testing.assert_array_equal(steps[0], steps[1])
