"""Classification: what is measured of a batch, what is named, and how that is judged."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax.config import replace, with_values
from transformer_jax.data.images import NO_LABEL, Labels
from transformer_jax.errors import UserError
from transformer_jax.export import export
from transformer_jax.models.build import build_model
from transformer_jax.run.saved import evaluate_run, load_params
from transformer_jax.tasks import task_of
from transformer_jax.tasks.classification import shifted
from transformer_jax.tasks.text_metrics import macro_f1

CONFIG = tiny.config({"model.family": "vision", "train.label_smoothing": 0.2})


def measured(config, params, batch, key=None):
    with jax.disable_jit():
        found = task_of(config).measure(config, build_model(config.model), params, batch, key)
    return {name: [np.asarray(part, np.float64) for part in pair] for name, pair in found.items()}


def test_loss_nll_and_accuracy_are_those_of_the_logits_and_empty_places_count_for_nothing():
    params, batch = tiny.params(CONFIG), dict(tiny.batch_of(CONFIG, rows=12))
    batch["labels"] = np.where(np.arange(12) == 5, NO_LABEL, batch["labels"])
    logits = tiny.logits(CONFIG, params, batch).astype(np.float64)
    batch["labels"][3] = logits[3].argmax()
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -log_probs[np.arange(12), batch["labels"]]
    expected = {
        "loss": 0.8 * nll + 0.2 * -log_probs.mean(-1),
        "nll": nll,
        "accuracy": logits.argmax(-1) == batch["labels"],
    }
    found, real = measured(CONFIG, params, batch), np.arange(12) != 5
    assert list(found) == list(expected)
    for name, (sums, counts) in found.items():
        np.testing.assert_array_equal(counts, real)
        np.testing.assert_allclose(sums, expected[name] * real, rtol=1e-4, atol=1e-5)
    assert 0 < found["accuracy"][0].sum() < 11


def test_the_data_say_how_many_classes_there_are_and_how_large_an_image_is():
    labels = Labels(("a", "b", "c"), 8, 4, 1)
    unset = with_values(CONFIG, {f"model.{name}": None for name in labels.sizes()})
    model = task_of(unset).complete(unset, labels).model
    assert (model.num_classes, model.image_height, model.image_width, model.image_channels) == (3, 8, 4, 1)
    assert task_of(unset).complete(replace(unset, {"model.num_classes": 3}), labels).model == model
    with pytest.raises(UserError, match=r"model\.num_classes = 11, but the data have 3"):
        task_of(CONFIG).complete(CONFIG, labels)


def test_macro_f1_is_the_mean_of_f1_over_the_classes_that_there_are():
    named, true = ["a", "a", "b", "c", "a"], ["a", "b", "b", "b", "a"]
    f1 = {"a": 2 * 2 / (3 + 2), "b": 2 * 1 / (1 + 3)}  # c is nobody's class
    assert macro_f1(named, true).score == pytest.approx((f1["a"] + f1["b"]) / 2)
    assert macro_f1(true, true).score == 1.0


# --- Images that are moved in training ---


def test_an_image_is_moved_by_whole_pixels_within_the_limit_and_its_edge_fills_the_rest():
    images = np.random.default_rng(0).integers(256, size=(200, 5, 4, 2), dtype=np.uint8)
    found, seen = np.asarray(shifted(images, 1, jax.random.key(0))), set()
    for image, moved in zip(images, found, strict=True):
        wide = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="edge")
        seen.add(next((r, c) for r in range(3) for c in range(3) if np.array_equal(wide[r : r + 5, c : c + 4], moved)))
    assert found.dtype == np.uint8
    assert seen == {(r, c) for r in range(3) for c in range(3)}


def test_images_are_moved_in_training_alone_and_anew_at_each_step():
    still = tiny.config({"model.family": "vision", "model.dropout_rate": 0.0})
    moving = replace(still, {"task.shift": 2})
    params, batch = tiny.params(still), tiny.batch_of(still)
    losses = [
        measured(config, params, batch, key)["loss"][0]
        for config, key in [
            (moving, None),
            (still, jax.random.key(0)),
            (moving, jax.random.key(0)),
            (moving, jax.random.key(1)),
        ]
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.allclose(losses[1], losses[2])
    assert not np.allclose(losses[2], losses[3])


# --- A run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny_run.copy_of(tiny_run.finished("vision"), tmp_path_factory.mktemp("vision") / "run")


def test_evaluate_says_what_training_recorded_and_predictions_are_the_likeliest_classes(run):
    result, found = json.loads((run / "result.json").read_text()), evaluate_run(run, split="test")
    assert found["metrics"] == result["metrics"]["test"]
    assert found["metrics"]["accuracy"] == found["metrics"]["exact_match"]
    written = Path(found["predictions"]).read_text().splitlines()
    assert written == (run / "predictions" / "test.txt").read_text().splitlines()
    program = tiny_run.program(model__family="vision")
    columns = program.dataset.splits["test"].columns
    logits = tiny.logits(program.config, load_params(run, "average:3"), {n: c.rows for n, c in columns.items()})
    assert written == [str(label) for label in logits.argmax(-1)]


def test_its_parameters_are_exported(run, tmp_path):
    tensors = export(run, tmp_path / "model.safetensors")["tensors"]
    assert tensors["patch_embedding.kernel"] == [4, 16]
    assert tensors["layers.self_attention.query.kernel"] == [1, 16, 2, 8]


def test_what_has_no_lines_of_text_is_not_scored_on_files(run, tmp_path):
    (tmp_path / "lines").write_text("0\n")
    with pytest.raises(UserError, match="'classification', which has no sources and translations"):
        evaluate_run(run, source=tmp_path / "lines", reference=tmp_path / "lines")
