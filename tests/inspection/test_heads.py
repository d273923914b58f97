"""What heads are worth: a factor of 0 is a head that is not there, and those that matter are found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax import cli
from transformer_jax.inspection.heads import Head, curves, heads_of, importance, masks, nll_without
from transformer_jax.inspection.sites import at, factors, sites_of
from transformer_jax.models.build import build_model
from transformer_jax.run.saved import open_run

pytestmark = pytest.mark.usefixtures("opened_once")

LEFT_OUT = [Head("encoder", 0, 1), Head("decoder", 0, 0), Head("cross", 1, 1)]


def without(params, sites, heads, layer_axis=0):
    """Parameters in which W_O takes nothing from these heads."""
    params = jax.tree.map(jnp.asarray, params)
    for head in heads:
        module = params
        for key in sites[head.site].path:
            module = module[key]
        kernel = module["out"]["kernel"]  # [L, H, V, D], perhaps behind an axis of lanes
        place = (slice(None),) * layer_axis + (head.layer, head.number)
        module["out"]["kernel"] = kernel.at[place].set(0)
    return params


def test_a_factor_of_0_is_a_head_that_is_not_there_in_training_and_in_writing():
    config = tiny.config()
    model, params, sites = build_model(config.model), tiny.params(config), sites_of(config)
    of_place = {place: mask[0] for place, mask in masks(sites, [LEFT_OUT]).items()}
    masked = dataclasses.replace(model, given={"heads": factors(sites, of_place)})
    batch = jax.tree.map(jnp.asarray, tiny.batch())
    pruned = without(params, sites, LEFT_OUT)
    with jax.disable_jit():
        expected = model.apply(pruned, batch)
        np.testing.assert_allclose(masked.apply(params, batch), expected, atol=1e-5)
        assert np.abs(np.asarray(model.apply(params, batch) - expected)).max() > 0.1
        steps = []
        for of, with_params in ((masked, params), (model, pruned)):
            context, cache = of.start(with_params, batch, 1, 3)
            steps.append(of.read(with_params, jnp.asarray([[2, 5]] * 4), context, cache)[0])
    np.testing.assert_allclose(*steps, atol=1e-5)
    with jax.disable_jit():
        context, cache = model.start(params, batch, 1, 3)
        unmasked = model.read(params, jnp.asarray([[2, 5]] * 4), context, cache)[0]
    assert np.abs(np.asarray(unmasked - steps[0])).max() > 0.1


@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
def test_a_factor_of_0_leaves_out_a_head_of_a_recurrent_network(attention):
    slots = {"model.context": attention, "model.attention.output_projection": "linear"}
    config = tiny.config({**tiny.of_family("recurrent"), **slots})
    model, params, sites = build_model(config.model), tiny.params(config), sites_of(config)
    assert sites["cross"][1:] == (1, 2)
    mask = {place: mask[0] for place, mask in masks(sites, [[Head("cross", 0, 1)]]).items()}
    batch = jax.tree.map(jnp.asarray, tiny.batch_of(config))
    with jax.disable_jit():
        _, seen = model.look(params, batch)
        masked = dataclasses.replace(model, given={"heads": factors(sites, mask)}).apply(params, batch)
        plain = model.apply(params, batch)
        kernel = params["decoder"]["context"]["cross_attention"]["out"]["kernel"]
        params["decoder"]["context"]["cross_attention"]["out"]["kernel"] = kernel.at[1].set(0)
        np.testing.assert_allclose(masked, model.apply(params, batch), atol=1e-5)
    assert np.abs(np.asarray(masked - plain)).max() > 0.01
    weights = at(sites["cross"], "weights", seen)
    assert weights.shape == (1, 4, 2, 5, 6)
    real = np.asarray(batch["targets"]) != 0
    np.testing.assert_allclose(np.moveaxis(np.asarray(weights[0]).sum(-1), 2, 1)[real], 1, rtol=1e-5)


@pytest.fixture(scope="module")
def made_up():
    """A run in which W_O takes something from one head alone: of the cross-attention, number 1."""
    run = open_run(tiny_run.finished())
    sites = sites_of(run.config)
    _, trained = run.load("last")
    useless = [head for head in heads_of(sites) if head != Head("cross", 0, 1)]
    params = without(trained.params, sites, useless, layer_axis=1)
    return run, sites, trained._replace(params=params), run.encode(["0 1 2", "3", "2 2"], ["2 1 0", "3 1", "2"])


def test_the_head_that_is_needed_is_the_only_one_that_costs(made_up):
    run, sites, trained, examples = made_up
    found = importance(run, trained, sites, examples)
    dear = [line for line in found["heads"] if abs(line["cost"]) > 1e-6]
    assert [(line["site"], line["layer"], line["number"]) for line in dear] == [("cross", 0, 1)]
    assert [line for line in found["heads"] if line["gradient"] > 1e-6] == dear
    assert dear[0]["gradient_in_layer"] == pytest.approx(1)
    points = curves(run, trained, sites, examples, found["heads"])["gradient"]
    *others, last = [point["nll"] for point in points]
    np.testing.assert_allclose(others, found["nll"], rtol=1e-5)
    assert last == pytest.approx(found["nll"] + dear[0]["cost"], rel=1e-5)


def test_the_gradient_is_that_of_the_factor(made_up):
    """Against a difference: the nll of a sentence with the head at 1 + h and at 1 - h."""
    run, sites, trained, _ = made_up
    _, trained = run.load("last")
    examples = run.encode(["0 1 2"], ["2 1 0"])
    (line,) = (
        line
        for line in importance(run, trained, sites, examples)["heads"]
        if line["site"] == "encoder" and line["number"] == 1
    )
    step, params = 0.05, {}
    for sign in (-1, 1):
        params[sign] = jax.tree.map(jnp.asarray, trained.params)
        module = params[sign]["encoder"]["layers"]["self_attention"]["out"]
        module["kernel"] = module["kernel"].at[:, 0, 1].multiply(1 + sign * step)
    nll = {}
    for sign, of_sign in params.items():
        sums, counts = nll_without(run, trained._replace(params=of_sign), sites, examples, [[]])
        nll[sign] = sums.sum() / counts.sum()
    assert line["gradient"] == pytest.approx(abs(nll[1] - nll[-1]) / (2 * step), rel=0.02, abs=1e-6)
    assert line["gradient"] > 1e-4


def test_the_command(tmp_path, capsys):
    lines = tmp_path / "lines"
    lines.write_text("0 1 2\n3 3\n")
    arguments = ["inspect", "heads", f"--workdir={tiny_run.finished()}", f"--output={tmp_path}", f"--source={lines}"]
    assert cli.main([*arguments, f"--reference={lines}"]) == 0
    output = capsys.readouterr().out
    assert "cross.0.1" in output
    assert output.splitlines()[-1] == str(tmp_path / "heads.json")
    assert cli.main([*arguments, "--scores"]) == 2
