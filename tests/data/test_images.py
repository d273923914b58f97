"""Images: what is read, how it is split, and what of it stands in a batch."""

import gzip
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pictures
import pytest

from transformer_jax.config import DataConfig
from transformer_jax.data import check, evaluation_batches, make_dataset, make_plan
from transformer_jax.data.images import Labels, read_idx
from transformer_jax.errors import UserError


def config(directory: Path, source: str = "mnist(valid=24)", **changes) -> DataConfig:
    return DataConfig(source=source, directory=str(directory), tokens_per_batch=32, **changes)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_written_is_read(tmp_path, suffix):
    dataset = make_dataset(config(pictures.write_set(tmp_path, suffix=suffix)))
    images, labels = pictures.made_up(120, 0)
    train, valid, test = (dataset.splits[name] for name in ("train", "valid", "test"))
    np.testing.assert_array_equal(train.columns["images"].rows[..., 0], images[:96])
    np.testing.assert_array_equal(valid.columns["images"].rows[..., 0], images[96:])
    np.testing.assert_array_equal(valid.columns["labels"].rows, labels[96:])
    np.testing.assert_array_equal(test.columns["images"].rows[..., 0], pictures.made_up(12, 1)[0])
    assert train.columns["images"].rows.dtype == np.uint8
    assert valid.texts["references"] == [str(label) for label in labels[96:]]
    assert dataset.assets == Labels(("0", "1", "2"), 6, 4, 1)
    assert dataset.summary()["image_height"] == 6


def test_every_image_is_in_an_epoch_once_and_places_without_one_are_marked(tmp_path):
    dataset = make_dataset(config(pictures.write_set(tmp_path, train=100 + 24)))
    plan = make_plan(dataset.splits["train"], config(tmp_path))
    batches = [plan.batch_at(step, seed=3) for step in range(plan.batches_per_epoch)]
    labels = np.concatenate([batch["labels"] for batch in batches])
    images = np.concatenate([batch["images"] for batch in batches])
    assert {batch["images"].shape for batch in batches} == {(32, 6, 4, 1)}
    assert (labels == -1).sum() == len(labels) - 100
    assert np.all(images[labels == -1] == 0)
    expected = dataset.splits["train"].columns["images"].rows
    assert sorted(image.tobytes() for image in images[labels >= 0]) == sorted(image.tobytes() for image in expected)


def test_an_evaluation_takes_as_many_images_at_a_time_as_training(tmp_path):
    split = make_dataset(config(pictures.write_set(tmp_path, test=70))).splits["test"]
    batches = list(evaluation_batches(split, config(tmp_path)))
    assert [len(indices) for indices, _ in batches] == [32, 32, 32]
    indices = np.concatenate([indices for indices, _ in batches])
    assert indices[indices >= 0].tolist() == list(range(70))


def test_another_image_or_label_is_another_set(tmp_path):
    def fingerprint() -> str:
        return make_dataset(config(tmp_path)).fingerprint

    pictures.write_set(tmp_path)
    images, labels = pictures.made_up(120, 0)
    found = {fingerprint()}
    images[0, 0, 0] ^= 1
    pictures.write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    found.add(fingerprint())
    pictures.write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels[::-1])
    found.add(fingerprint())
    assert len(found) == 3


def test_labels_are_saved_and_those_of_another_set_refused(tmp_path):
    labels = Labels(("cat", "dög"), 6, 4, 1)
    labels.save(tmp_path)
    assert Labels.load(tmp_path) == labels
    with pytest.raises(UserError, match="not those of the run"):
        make_dataset(config(pictures.directory()), labels)


@pytest.mark.parametrize(
    "content", ["{", "[]", {"names": ["a", "a"]}, {"names": []}, {"names": [3]}, {"height": 0}, {"width": "4"}]
)
def test_damaged_labels_are_refused(tmp_path, content):
    if isinstance(content, dict):
        content = json.dumps({"names": ["a", "b"], "height": 6, "width": 4, "channels": 1, **content})
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(UserError, match=r"labels\.json"):
        Labels.load(tmp_path)


DAMAGED = {
    "missing": (lambda path: path.unlink(), "the file train-images-idx3-ubyte (or train-images-idx3-ubyte.gz)"),
    "cut": (lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1])), "or is cut off"),
    "other dimensions": (lambda path: pictures.write_idx(path, np.zeros(120)), "no idx file of bytes in 3 dimensions"),
    "no gzip": (lambda path: path.write_bytes(b"x"), "damaged gzip"),
    "empty": (lambda path: path.write_bytes(gzip.compress(b"")), "no idx file"),
    "fewer": (lambda path: pictures.write_idx(path, pictures.made_up(119, 0)[0]), "119 images but 120 labels"),
    "wider": (lambda path: pictures.write_idx(path, np.zeros((120, 6, 5))), "not of one size"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_in_a_sentence(tmp_path, kind):
    damage, words = DAMAGED[kind]
    damage(pictures.write_set(tmp_path) / "train-images-idx3-ubyte.gz")
    with pytest.raises(UserError) as refused:
        make_dataset(config(tmp_path))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("source", "changes", "words"),
    [
        ("mnist(valid=0)", {}, "at least 1"),
        ("mnist(valid=120)", {}, "leaves none of the 120"),
        ("mnist", {"batching": "packed"}, "images are not packed"),
    ],
)
def test_what_cannot_be_is_refused(source, changes, words):
    def check_and_read(config: DataConfig) -> None:
        check(config)
        make_dataset(config)

    with pytest.raises(UserError, match=words):
        check_and_read(config(pictures.directory(), source, **changes))


def test_the_digits_of_scikit_learn():
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("the extra [digits] is not installed")
    dataset = make_dataset(DataConfig(source="digits"))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 1079, "valid": 359, "test": 359}
    assert dataset.assets.sizes() == {"num_classes": 10, "image_height": 8, "image_width": 8, "image_channels": 1}
    images = dataset.splits["train"].columns["images"].rows
    assert (images.min(), images.max()) == (0, 255)
    assert dataset.splits["valid"].texts["references"][:5] == ["3", "8", "3", "8", "3"]
    assert images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0, 0, 5, 13, 9, 1, 0, 0


def test_without_scikit_learn_there_are_no_digits(monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    with pytest.raises(UserError, match=r"install the extra: .*\[digits\]"):
        make_dataset(DataConfig(source="digits"))


def test_mnist_is_mnist():
    """Counts and mean of the original files, as they are published."""
    directory = Path(os.environ.get("TRANSFORMER_JAX_DATA", "")) / "mnist"
    if not directory.is_dir():
        pytest.skip("TRANSFORMER_JAX_DATA has no mnist")
    labels = read_idx(directory, "train-labels-idx1-ubyte", 1)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    images = read_idx(directory, "t10k-images-idx3-ubyte", 3)
    assert images.shape == (10_000, 28, 28)
    assert images.mean() / 255 == pytest.approx(0.1325, abs=5e-5)
