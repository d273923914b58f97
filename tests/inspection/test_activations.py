"""What a model has in between, and what it says when a part of that is another's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from transformer_jax.errors import UserError
from transformer_jax.inspection.activations import inspect_run

pytestmark = pytest.mark.usefixtures("opened_once")


@pytest.fixture(scope="module")
def run():
    return inspect_run(tiny_run.finished(), "last")


def test_activations_have_names_for_their_axes(run):
    found = run.activations("0 1 2", ["encoder.*", "logits"], target="2 1")
    weights = found["encoder.layers.self_attention.weights"]
    assert weights.axes == ("layer", "head", "query", "key")
    assert weights.array.shape == (1, 2, 4, 4)
    heads, out = (found[f"encoder.layers.self_attention{name}"] for name in (".heads", ""))
    assert (heads.axes, heads.array.shape) == (("layer", "query", "head", "width"), (1, 4, 2, 8))
    kernel = run.params["encoder"]["layers"]["self_attention"]["out"]["kernel"]
    np.testing.assert_allclose(out.array, np.einsum("lthv,lhvd->ltd", heads.array, kernel), atol=1e-5)
    value = found["encoder.layers.self_attention.v"]
    expected = np.einsum("lhts,lshv->lthv", weights.array, value.array)
    np.testing.assert_allclose(heads.array, expected, atol=1e-5)
    assert found["logits"].axes == ("position", "width")
    assert all(len(activation.axes) == activation.array.ndim for activation in found.values())
    with pytest.raises(UserError, match="nothing: nothing has such a name; there are decoder, "):
        run.activations("0 1 2", ["nothing"], target="2 1")


def test_all_of_the_encoder_of_another_text_is_the_other_text(run):
    """Where the last that the encoder says is replaced, the decoder knows nothing of the first text."""
    other = run.activations("2 0 1", ["logits"], target="2 1")["logits"].array
    ids = {"2": 4 + run.run.assets.target.pieces.index("2"), "1": 4 + run.run.assets.target.pieces.index("1")}
    expected = jax.nn.log_softmax(jnp.asarray(other))[jnp.arange(3), jnp.asarray([ids["2"], ids["1"], 3])]
    found = run.patch("0 1 3", "2 0 1", at="encoder.layers", target="2 1")
    assert found.predicts == ["2", "1", "<eos>"]
    np.testing.assert_allclose(found.after, expected, rtol=1e-4)
    assert np.abs(found.after - found.before).max() > 1e-3
    same = run.patch("0 1 3", "0 1 3", at="encoder.layers", target="2 1")
    np.testing.assert_allclose(same.after, same.before, rtol=1e-5)


def test_a_trace_is_of_patches_one_by_one(run):
    """The texts differ in their second word, and so do the values of the first layer."""
    at = "encoder.layers.self_attention.value"
    traced = run.trace("0 1 3", "0 2 3", at=at, target="2 1")
    assert traced.shape == (1, 4)
    for position in range(4):
        one = run.patch("0 1 3", "0 2 3", at=at, positions=[position], target="2 1")
        assert traced[0, position] == pytest.approx(one.change, abs=1e-6)
    assert np.abs(traced[0, 1]) > 1e-4
    np.testing.assert_allclose(traced[0, [0, 2, 3]], 0, atol=1e-6)
    nowhere = run.patch("0 1 3", "0 2 3", at=at, layers=[], target="2 1")
    assert nowhere.change == 0
    for wrong in ("encoder.layers.nothing", "encoder.layers.self_attention.weights"):
        with pytest.raises(UserError, match="no module has this path"):
            run.patch("0", "1", at=wrong, target="2")
    with pytest.raises(UserError, match="is .* for one text and .* for the other"):
        run.patch("0", "1 2", at="encoder.layers", target="2")


def test_a_decoder_alone_looks_only_back():
    run = inspect_run(tiny_run.finished("decoder_only"), "last")
    found = run.patch("the lice", "the nice", at="layers", positions=[4])
    assert len(found.before) == len("the lice")
    np.testing.assert_array_equal(found.after[:4], found.before[:4])
    assert np.abs(found.after[4:] - found.before[4:]).max() > 1e-4
