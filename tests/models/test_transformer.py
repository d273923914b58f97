"""What a caller can ask of the model beside its logits: the encoder's output, attention weights, rematerialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.config import FIELDS
from transformer_jax.models.build import build_model
from transformer_jax.models.stack import KEPT, REMAT_POLICIES
from transformer_jax.models.tokens import tokens_of

CONFIG = tiny.config()
SITES = {
    ("encoder", "self_attention"): (1, 6, 6),
    ("decoder", "self_attention"): (2, 5, 5),
    ("decoder", "cross_attention"): (2, 5, 6),
}
"""Stack and sublayer -> layers, queries, keys."""


def batch():
    return jax.tree.map(jnp.asarray, tiny.batch())


def test_attention_weights_of_every_layer_and_head_are_there_for_who_asks():
    model, params = build_model(CONFIG.model), tiny.params(CONFIG)
    with jax.disable_jit():
        logits, kept = model.module.apply({"params": params}, batch(), mutable=["intermediates"])
    np.testing.assert_array_equal(logits, tiny.logits(CONFIG, params, tiny.batch()))
    found = kept["intermediates"]
    for (stack, sublayer), (layers, queries, keys) in SITES.items():
        (weights,) = found[stack]["layers"][sublayer]["weights"]
        assert weights.shape == (layers, 4, 2, queries, keys)
        real = np.asarray(tokens_of(batch(), "inputs" if stack == "encoder" else "targets").segments) != 0
        if sublayer == "self_attention":
            np.testing.assert_allclose(np.moveaxis(weights.sum(-1), 3, 2)[:, real], 1.0, rtol=1e-5)
    cross = np.asarray(found["decoder"]["layers"]["cross_attention"]["weights"][0])
    padding = np.broadcast_to((tiny.batch()["inputs"] == 0)[None, :, None, None], cross.shape)
    assert np.all(cross[padding] == 0)


def test_who_does_not_ask_gets_nothing_and_pays_nothing():
    model, params = build_model(CONFIG.model), tiny.params(CONFIG)
    asked = jax.make_jaxpr(lambda p, b: model.module.apply({"params": p}, b, mutable=["intermediates"]))(
        params, batch()
    )
    plain = jax.make_jaxpr(model.apply)(params, batch())
    assert len(plain.out_avals) == 1
    assert len(asked.out_avals) == 1 + 6 * len(SITES)  # queries, keys, values, scores, weights, heads


def test_initial_values_hold_parameters_alone():
    variables = jax.eval_shape(lambda: build_model(CONFIG.model).module.init(jax.random.key(0), batch()))
    assert set(variables) <= {"params", "intermediates"}
    assert set(jax.eval_shape(lambda: build_model(CONFIG.model).init(jax.random.key(0), batch()))) == {
        "source_embedding", "encoder", "decoder"
    }  # fmt: skip


def test_the_encoders_output_can_be_had():
    model, params = build_model(CONFIG.model), tiny.params(CONFIG)
    with jax.disable_jit():
        encoded = model.module.apply({"params": params}, tokens_of(batch(), "inputs"), method="encode")
    assert encoded.shape == (4, 6, 8)
    assert len(np.unique(np.asarray(encoded).round(4))) > 100


def test_hypotheses_of_one_example_start_alike_in_a_batch_of_one_too():
    model, params = build_model(CONFIG.model), tiny.params(CONFIG)
    one = {"inputs": batch()["inputs"][:1]}
    with jax.disable_jit():
        context, cache = model.start(params, one, 3, 4)
        logits, _ = model.step(params, jnp.asarray([5, 5, 6]), context, cache)
        alone, _ = model.step(params, jnp.asarray([5]), *model.start(params, one, 1, 4))
    np.testing.assert_allclose(logits[0], alone[0], rtol=1e-5)
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2])


def test_hypotheses_of_one_example_are_apart_however_many_tokens_are_read_at_once():
    """Each of three an example, with the tokens that it reads, gives the logits that it gives alone."""
    module, params = build_model(CONFIG.model).module, {"params": tiny.params(CONFIG)}
    sources, tokens_NT = batch()["inputs"][:2], np.random.default_rng(0).integers(4, 11, (6, 4))

    def read(sources, tokens_NT, width, parts):
        _, kept = module.apply(params, {"inputs": sources}, width, 5, method="start", mutable=KEPT)
        found = []
        for part_NT in np.split(tokens_NT, parts, axis=1):
            logits, changed = module.apply({**params, **kept}, part_NT, method="step", mutable=["cache"])
            kept, found = {**kept, **changed}, [*found, logits]
        return np.concatenate(found, axis=1)

    with jax.disable_jit():
        alone = read(np.repeat(sources, 3, axis=0), tokens_NT, 1, [])
        for parts in ([], [1, 2, 3], [2]):
            np.testing.assert_allclose(read(sources, tokens_NT, 3, parts), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_what_is_computed_again_comes_out_the_same(remat):
    """Dropout too: its keys are those of the first time."""
    plain, again = (tiny.config({"train.remat": how}) for how in ("none", remat))
    assert remat in FIELDS["train.remat"].type.__args__
    params, key = tiny.params(plain), jax.random.key(1)

    def loss(config):
        return lambda params: tiny.totals(config, params, batch(), key)["loss"][0]

    assert str(jax.make_jaxpr(jax.grad(loss(again)))(params)).count("remat") > 0
    assert "remat" not in str(jax.make_jaxpr(jax.grad(loss(plain)))(params))
    found, expected = (jax.jit(jax.grad(loss(config)))(params) for config in (again, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
