"""Where dropout acts (Section 5.4), seen from outside.

All weights are 0 but those that carry one constant to the logits, which stand for the coordinates of the vector then:
equal coordinates that were not dropped alike are told apart by the number of different logits.
"""

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.models.regularisation import bernoulli

D = 64
THROUGH = {  # the average of the encoder's output goes into the decoder as it is
    "model.attention.cross.projections": "none",
    "model.attention.cross.output_projection": "none",
}
TOKENS = {"inputs_BS": np.int32([[5]]), "decoder_inputs_BT": np.int32([[5]])}


def constant_model(overrides, constants):
    """The config, and parameters of which those named by `constants` are 1."""
    config = tiny.config(
        {
            "model.d_model": D,
            "model.vocab_size": D,
            "model.residual": "pre_norm",
            "model.positions": "none",
            "model.embedding.tying": "none",
            "model.dropout_rate": 0.5,
            "model.num_decoder_layers": 1,
            **overrides,
        }
    )

    def value(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name == "softmax/embedding":
            return jnp.eye(D)
        return jnp.full(leaf.shape, float(name.endswith("/scale") or name in constants))

    return config, jax.tree_util.tree_map_with_path(value, tiny.params(config))


def levels(overrides, *constants, key=0):
    """How many different logits there are, with dropout (or, at None, without).

    Compiled, as layers that run one by one would draw keys one by one, whatever the scan over them says.
    """
    config, params = constant_model(overrides, constants)
    key = None if key is None else jax.random.key(key)
    logits = jax.jit(lambda params: inside.logits(config, params, **TOKENS, key=key))(params)
    return len(np.unique(np.asarray(logits[0, 0]).round(3)))


EMBEDDED = {
    "decoder": ({}, "target_embedding/embedding", 2),
    "decoder's positions": ({"model.positions": "learned"}, "decoder/positions/embedding", 2),
    "encoder": (THROUGH, "source_embedding/embedding", 3),
    "encoder's positions": ({**THROUGH, "model.positions": "learned"}, "encoder/positions/embedding", 3),
}


@pytest.mark.parametrize("place", EMBEDDED)
def test_the_sum_of_embedding_and_position_is_dropped_in_both_stacks(place):
    """The encoder's is seen through an Add & Norm of the decoder, which drops some of it once more."""
    overrides, constant, expected = EMBEDDED[place]
    assert levels(overrides, constant, key=None) == 1
    assert levels(overrides, constant) == expected


@pytest.mark.parametrize(("stack", "through", "once_more"), [("decoder", {}, 0), ("encoder", THROUGH, 1)])
def test_layers_drop_units_of_their_own(stack, through, once_more):
    """Two layers that each add 1 or, half of the time, nothing: 0, 1 and 2 are found."""
    layers = {f"model.num_{name}_layers": 2 if name == stack else 1 for name in ("encoder", "decoder")}
    assert levels({**through, **layers}, f"{stack}/layers/feed_forward/linear_2/bias") == 3 + once_more


@pytest.mark.parametrize("place", ["encoder", "decoder", "cross"])
def test_attention_drops_weights_and_not_scores(place):
    """Uniform weights do not look at the scores."""
    config = tiny.config(
        {
            "model.attention.weights": "uniform",
            "model.dropout_rate": 0.0,
            f"model.attention.{place}.dropout_rate": 0.5,
        }
    )
    params, batch = tiny.params(config), tiny.batch()
    assert not np.allclose(tiny.logits(config, params, batch, jax.random.key(0)), tiny.logits(config, params, batch))


@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4)])
def test_what_is_dropped_is_what_jax_draws(shape):
    """Many times faster, bit for bit the same; in lanes with keys and rates of their own, too."""
    keys, rates = jax.random.split(jax.random.key(3), 2), jnp.float32([0.25, 0.75])
    drawn = [jax.random.bernoulli(key, rate, (1000, *shape)) for key, rate in zip(keys, rates, strict=True)]
    assert 0.2 < float(drawn[0].mean()) < 0.3
    of_lanes = jax.vmap(lambda key, rate: bernoulli(key, rate, (1000, *shape)))(keys, rates)
    np.testing.assert_array_equal(of_lanes, drawn)


def test_another_generator_that_was_chosen_draws():
    key = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(bernoulli(key, 0.5, (100,)), jax.random.bernoulli(key, 0.5, (100,)))
