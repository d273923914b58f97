"""A model of images: patches, places, pooling, and the convolution that may stand in the place of attention."""

import functools

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from transformer_jax.config import fields_of, is_read
from transformer_jax.errors import UserError
from transformer_jax.models import build
from transformer_jax.models.convolution import GridConvolution
from transformer_jax.models.positions import POSITIONS_IN_A_GRID, sinusoids
from transformer_jax.models.vision import patches

VISION = {"model.family": "vision"}
PLAIN = {  # a layer adds the mean of all tokens
    **VISION,
    "model.num_layers": 1,
    "model.attention.weights": "uniform",
    "model.attention.projections": "none",
    "model.attention.output_projection": "none",
    "model.feed_forward": "none",
    "model.norm": "none",
}
ROWS, COLUMNS, SIZE, D = 4, 2, 2, 8  # of the tiny images


def by_hand(images, size):
    """[B, T, P]: the pixels of each patch, row by row."""
    found = [
        [
            np.concatenate([image[r + i, c + j] for i in range(size) for j in range(size)])
            for r in range(0, image.shape[0], size)
            for c in range(0, image.shape[1], size)
        ]
        for image in np.asarray(images, np.float64)
    ]
    return np.asarray(found) / 127.5 - 1


def test_patches_are_cut_row_by_row_and_pixels_lie_between_minus_1_and_1():
    images = np.random.default_rng(0).integers(256, size=(3, 6, 4, 2), dtype=np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    found = np.asarray(patches(images, 2))
    assert (found.min(), found.max()) == (-1, 1)
    np.testing.assert_allclose(found, by_hand(images, 2), atol=1e-6)


def places_by_hand(scheme, class_token, params):
    """[T, D]: what the scheme adds to each token."""
    tokens = ROWS * COLUMNS + class_token
    if scheme == "none":
        return np.zeros((tokens, D))
    if scheme == "learned":
        return params["positions"]["embedding"][:tokens]
    if scheme == "sinusoidal":
        return np.asarray(sinusoids(np.arange(tokens)[None], D))[0]
    grid = [(0, 0)] * class_token + [(1 + r, 1 + c) for r in range(ROWS) for c in range(COLUMNS)]
    return np.asarray([np.concatenate([wave(row), wave(column)]) for row, column in grid])


def wave(place):
    """Section 3.5 in D / 2 coordinates."""
    angles = place / 10000 ** (np.arange(0, D // 2, 2) / (D // 2))
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(-1)


@pytest.mark.parametrize("pooling", ["class_token", "mean"])
@pytest.mark.parametrize("scheme", ["none", "learned", "sinusoidal", "sinusoidal_2d"])
def test_the_logits_of_a_plain_model_by_hand(pooling, scheme):
    config = tiny.config({**PLAIN, "model.pooling": pooling, "model.positions": scheme})
    params, batch = tiny.params(config), tiny.batch_of(config)
    x_BTD = by_hand(batch["images"], SIZE) @ params["patch_embedding"]["kernel"] + params["patch_embedding"]["bias"]
    if pooling == "class_token":
        first_B1D = np.broadcast_to(params["class_token"], (len(x_BTD), 1, D))
        x_BTD = np.concatenate([first_B1D, x_BTD], axis=1)
    x_BTD = x_BTD + places_by_hand(scheme, pooling == "class_token", params)
    mean_BD = x_BTD.mean(axis=1)
    pooled_BD = x_BTD[:, 0] + mean_BD if pooling == "class_token" else 2 * mean_BD
    expected = pooled_BD @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    np.testing.assert_allclose(tiny.logits(config, params, batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", POSITIONS_IN_A_GRID)
def test_without_positions_patches_may_be_shuffled_and_with_any_they_may_not(scheme):
    config = tiny.config({**VISION, "model.positions": scheme})
    params, batch = tiny.params(config), tiny.batch_of(config)
    swapped = {**batch, "images": batch["images"][:, [2, 3, 0, 1, 4, 5, 6, 7]]}  # the upper two rows of patches
    same = np.allclose(tiny.logits(config, params, batch), tiny.logits(config, params, swapped), rtol=1e-4, atol=1e-4)
    assert same == (scheme == "none")


@pytest.mark.parametrize("overrides", tiny.covering(["vision"]), ids=tiny.name)
def test_every_pixel_moves_the_logits_of_its_image_and_of_no_other(overrides):
    config = tiny.config(overrides)
    params, batch = tiny.params(config), tiny.batch_of(config)
    weights_C = np.random.default_rng(5).normal(size=11).astype(np.float32)

    def combination(images, params):
        logits_BC = build.build_model(config.model).apply(params, {"images": images})
        return logits_BC[1] @ weights_C

    gradient = np.asarray(jax.jit(jax.grad(combination))(jnp.asarray(batch["images"], jnp.float32), params))
    assert np.all(gradient[[0, 2, 3]] == 0)
    sees_all = overrides.get("model.attention.weights") != "sparsemax"  # which leaves patches out by its nature
    assert np.any(gradient[1] != 0)
    assert np.all(np.abs(gradient[1]).sum(axis=-1) > 0) or not sees_all


# --- Convolution ---


def convolved(x_TD, kernel_IJD, bias_D):
    """Each patch by itself, on a grid of 4 x 2."""
    found, margin = np.zeros(x_TD.shape), len(kernel_IJD) // 2
    for r, c, i, j in np.ndindex(ROWS, COLUMNS, *kernel_IJD.shape[:2]):
        row, column = r + i - margin, c + j - margin
        if 0 <= row < ROWS and 0 <= column < COLUMNS:
            found[r * COLUMNS + c] += kernel_IJD[i, j] * x_TD[row * COLUMNS + column]
    return found + bias_D


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolution_on_the_grid_by_hand(kernel):
    rng = np.random.default_rng(0)
    module = GridConvolution((ROWS, COLUMNS), kernel)
    params = {"kernel": rng.normal(size=(kernel, kernel, D)), "bias": rng.normal(size=D)}
    x_BTD = rng.normal(size=(2, ROWS * COLUMNS, D))
    found = inside.apply(module, jax.tree.map(jnp.float32, params), jnp.float32(x_BTD))
    expected = [convolved(x_TD, params["kernel"], params["bias"]) for x_TD in x_BTD]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert inside.param_shapes(module, jnp.float32(x_BTD))["kernel"].shape == (kernel, kernel, D)


def test_with_a_convolution_no_knob_of_attention_is_read():
    config = tiny.config({**VISION, "model.mixing": "convolution(kernel=5)"})
    read = [path for path, field in fields_of(config).items() if is_read(field, config)]
    assert not [path for path in read if "attention" in path]
    assert not {"model.num_heads", "model.d_k", "model.d_v"} & set(read)
    assert {"model.positions", "model.d_ff", "model.pooling"} <= set(read)


REFUSED = [
    ({"model.patch_size": 3}, ["model.patch_size = 3", "model.image_height = 8"]),
    ({"model.positions": "learned(max_length=7)"}, ["learned(max_length=8)", "the image"]),
    ({"model.mixing": "convolution", "model.pooling": "class_token"}, ["class_token", "convolution", "'mean'"]),
    ({"model.mixing": "convolution", "model.positions": "rotary"}, ["rotary", "convolution"]),
    ({"model.mixing": "convolution", "model.positions": "learned(max_length=7)"}, ["learned(max_length=8)"]),
    ({"model.mixing": "convolution(kernel=4)"}, ["kernel", "odd"]),
    ({"model.mixing": "convolve"}, ["model.mixing", "'convolution'"]),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=[str(sorted(o.items())[0]) for o, _ in REFUSED])
def test_what_cannot_be_built_is_refused_in_a_sentence(overrides, words):
    with pytest.raises(UserError) as refused:
        build.check(tiny.config({**VISION, **overrides}))
    assert [word for word in words if word not in str(refused.value)] == []


def test_tokens_of_a_text_stand_in_no_grid():
    with pytest.raises(UserError, match="model.positions: unknown 'sinusoidal_2d'"):
        build.check(tiny.config({"model.positions": "sinusoidal_2d"}))


def test_an_image_is_as_long_as_its_patches_and_the_class_token():
    longest = functools.partial(tiny.config, VISION)().model.longest(0, 0)
    assert longest == ROWS * COLUMNS
    assert tiny.config({**VISION, "model.pooling": "class_token"}).model.longest(0, 0) == longest + 1
