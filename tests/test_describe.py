"""What a config amounts to."""

import jax
import pytest
import tiny

from transformer_jax.config import FIELDS, Resolved, freeze
from transformer_jax.describe import describe
from transformer_jax.errors import UserError
from transformer_jax.forecast import collectives_of, flops_per_step, forecast, mesh_overrides, play_devices


def test_modules_sum_to_the_parameters_and_memory_follows():
    found = describe(tiny.config({"model.embedding.tying": "decoder", "model.source_vocab_size": 13}))
    modules = found["modules"]
    assert modules["source_embedding.embedding"] == 13 * 8
    assert modules["encoder.layers.self_attention"] == 4 * 8 * 8
    assert modules["decoder.layers.cross_attention"] == 2 * 4 * 8 * 8
    assert modules["decoder.layers.feed_forward"] == 2 * (8 * 12 + 12 + 12 * 8 + 8)
    assert found["parameters"] == sum(modules.values())
    assert found["memory"]["parameters"] == 4 * found["parameters"]


@pytest.fixture
def without_flops(monkeypatch):
    """They take seconds."""
    monkeypatch.setattr("transformer_jax.describe._flops_per_token", lambda *_: {})


@pytest.mark.usefixtures("without_flops")
def test_memory_is_that_of_the_optimizer_that_is_chosen_and_of_the_average():
    """Adam keeps two moments of each parameter, Lion one, SGD none; float32; a few bytes count the steps."""
    for optimizer, moments in {"adam": 2, "adamw": 2, "lion": 1, "sgd": 0}.items():
        found = describe(tiny.config({"optimizer.name": optimizer, "optimizer.weight_decay": 0.1}))
        size = 4 * found["parameters"]
        assert found["memory"] == {
            "parameters": size, "gradients": size, "optimizer": pytest.approx(moments * size, abs=8), "average": 0,
        }  # fmt: skip
    averaged = describe(tiny.config({"optimizer.ema_decay": 0.9}))
    assert averaged["memory"]["average"] == 4 * averaged["parameters"]


ENCODER = 4 * 8 * 8 + 2 * 8 * 12
SELF, CROSS_TARGET, CROSS_SOURCE = 4 * 8 * 8, 2 * 8 * 8, 2 * 8 * 8
DECODER = 2 * (SELF + CROSS_TARGET + 2 * 8 * 12)
INPUTS, TARGETS = ENCODER + 2 * CROSS_SOURCE, DECODER + 11 * 8
"""One layer of encoder and two of decoder, d_model 8, d_ff 12; the sources are keys and values of cross-attention."""


@pytest.mark.parametrize("tying", tiny.choices("model.embedding.tying"))
def test_flops_are_six_for_each_weight_that_a_token_meets_lookups_are_free(tying):
    found = describe(tiny.config({"model.embedding.tying": tying, "model.embedding.output_bias": True}))
    assert found["flops_per_token"] == {"inputs": 6 * INPUTS, "targets": 6 * TARGETS}


def test_flops_of_weights_that_several_places_share_are_those_of_each():
    shared = describe(tiny.config({"model.attention.projections": "shared"}))
    assert shared["flops_per_token"] == {"inputs": 6 * INPUTS, "targets": 6 * TARGETS}
    assert shared["modules"]["encoder.layers.self_attention"] == 2 * 8 * 8


def test_a_decoder_alone_has_one_side():
    config = tiny.config({"model.family": "decoder_only", "data.source": "text"})
    weights = config.model.num_layers * (SELF + 2 * 8 * 12) + 11 * 8
    assert describe(config)["flops_per_token"] == {"inputs": 6 * weights}


def test_flops_of_an_image_are_those_of_all_its_patches_and_of_what_they_say_to_each_other():
    patches, layers, attended = 8, 2, 2 * 8 * 8 * 8  # of keys and of values
    sums = patches * (8 * 8 + layers * ENCODER) + layers * attended + 8 * 11
    config = tiny.config({"model.family": "vision", "data.source": "digits"})
    assert describe(config)["flops_per_token"] == {"example": 6 * sums}


@pytest.mark.usefixtures("without_flops")
def test_what_is_not_used_is_said():
    assert "model.d_ff" in describe(tiny.config({"model.ffn_depth": 1}))["not_used"]
    assert "model.d_ff" not in describe(tiny.config())["not_used"]
    text = describe(tiny.config({"model.family": "decoder_only", "data.source": "text"}))["not_used"]
    assert {"data.joint_vocabulary", "data.over_long", "data.source_language", "data.target_language"} <= set(text)
    assert "data.joint_vocabulary" not in describe(tiny.config())["not_used"]


def test_a_config_without_vocabulary_or_with_an_impossible_pair_is_refused():
    with pytest.raises(UserError, match=r"model\.vocab_size"):
        describe(freeze({}))
    with pytest.raises(UserError, match=r"model\.num_classes is unset"):
        describe(freeze({**tiny.of_family("vision"), "data.source": "digits"}))
    with pytest.raises(UserError, match="rotary"):
        describe(tiny.config({"model.positions": "rotary", "model.attention.score": "additive"}))


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_model_at_the_ends_of_all_ranges_is_described(end):
    """Whatever the bounds let through can be counted."""
    numbers = {path: field for path, field in FIELDS.items() if field.base_type in (int, float)}
    values = {path: field.base_type(getattr(field.knob, end)) for path, field in numbers.items()}
    figures = describe(freeze({**values, "train.steps": 10**9, "optimizer.warmup_steps": 1}))
    assert figures["parameters"] == sum(figures["modules"].values()) > 0


PROGRAM = """
HloModule steps

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(f32[] %x, f32[] %y)
}

%layer (arg: (f32[4])) -> (f32[4]) {
  %whole = f32[8,4]{1,0} all-gather(f32[1,4]{1,0} %part), dimensions={0}
  ROOT %out = (f32[4]) tuple(%x)
}

ENTRY %main (p: f32[8]) -> f32[] {
  %looped = (f32[4]) while((f32[4]) %begin), condition=%more, body=%layer, backend_config={"known_trip_count":{"n":"6"}}
  %both = (f32[3]{0}, bf16[2,2]{1,0}) all-reduce(%a, %b), to_apply=%add
  ROOT %r = f32[] add(f32[] %c, f32[] %d)
}
"""


def test_what_is_exchanged_in_a_loop_counts_as_often_as_it_runs():
    assert collectives_of(PROGRAM) == {
        "all-gather": {"times": 6, "bytes": 6 * 8 * 4 * 4},
        "all-reduce": {"times": 1, "bytes": 3 * 4 + 2 * 2 * 2},
    }


@pytest.mark.usefixtures("without_flops")
def test_of_one_device_the_forecast_is_that_of_the_whole():
    config = tiny.config({"data.tokens_per_batch": 512, "parallel.data": 1})
    found = forecast(Resolved(config), memory=2**26)
    whole = describe(config)["memory"]
    assert found["batch"] == {"inputs": [32, 16], "targets": [32, 16]}
    assert found["per_device"]["parameters"] == whole["parameters"]
    assert found["per_device"]["optimizer"] == whole["optimizer"]
    assert found["per_device"]["logits"] == 4 * 32 * 16 * 11
    assert found["per_device"]["works"] > found["per_device"]["logits"]
    assert found["collectives"] == {}
    for_each = (2**26 - 3 * whole["parameters"]) / found["most_rows"]
    assert for_each == pytest.approx(found["per_device"]["works"] / 32, rel=0.3)


def test_flops_of_a_step_count_a_decoders_own_pairs_half_and_those_across_whole():
    rows, width, heads = 32, 16, 2 * (4 + 4)
    pairs = {"encoder": 1, "decoder": 2 / 2, "cross": 2}  # times layers
    between = 3 * 2 * sum(pairs.values()) * rows * width**2 * heads
    config = Resolved(tiny.config({"data.tokens_per_batch": rows * width}))
    assert flops_per_step(config, {"inputs": 5, "targets": 7}) == rows * width * 12 + between
    images = Resolved(tiny.config({"model.family": "vision", "data.source": "digits", "data.tokens_per_batch": rows}))
    assert flops_per_step(images, {"example": 5}) == rows * 5


def test_a_mesh_is_given_by_its_axes():
    assert mesh_overrides("data:8,fsdp:-1") == {"parallel.data": 8, "parallel.fsdp": -1}
    for wrong in ("data=8", "rows:8", "data:", "fsdp:x"):
        with pytest.raises(UserError, match="--mesh="):
            mesh_overrides(wrong)


def test_devices_are_played_by_a_process_that_has_none_yet():
    assert jax.devices()
    with pytest.raises(UserError, match="--devices=8: JAX has started"):
        play_devices(8)
