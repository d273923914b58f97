"""TFDS sets of images built offline from local files, read without TensorFlow."""

import io

import numpy as np
import pytest
from PIL import Image

from transformer_jax.config import DataConfig
from transformer_jax.data import check, make_dataset
from transformer_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra [tfds] is not installed")

NAMES = ["cat", "dog", "eel"]
SPLITS = {"train": 5, "validation": 2, "test": 3}


def picture(number, height=6):
    return np.random.default_rng(number).integers(256, size=(height, 4, 3), dtype=np.uint8)


class LocalImages(tfds.core.GeneratorBasedBuilder):
    """The config "odd" has images of two sizes, "nameless" no label."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("even", "odd", "nameless")]  # noqa: RUF012

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=NAMES)}
        keys = None if self.builder_config.name == "nameless" else ("image", "label")
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(count) for name, count in SPLITS.items()}

    def _generate_examples(self, count):
        for number in range(count):
            height = 8 if self.builder_config.name == "odd" and number else 6
            file = io.BytesIO()
            Image.fromarray(picture(number, height)).save(file, "png")
            yield number, {"image": io.BytesIO(file.getvalue()), "label": NAMES[number % 3]}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    for name in ("even", "odd", "nameless"):
        LocalImages(config=name, data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


def config(directory, source="tfds_images"):
    return DataConfig(source=source, directory=str(directory))


def test_by_name_and_by_directory(data_dir):
    found = make_dataset(config(data_dir / "local_images/even/1.0.0"))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 5, "valid": 2, "test": 3}
    assert found.assets.names == ("cat", "dog", "eel")
    columns = found.splits["train"].columns
    by_label = sorted(zip(columns["labels"].rows.tolist(), [i.tobytes() for i in columns["images"].rows], strict=True))
    assert by_label == sorted((number % 3, picture(number).tobytes()) for number in range(5))
    assert sorted(found.splits["test"].texts["references"]) == ["cat", "dog", "eel"]
    named = make_dataset(config(data_dir, 'tfds_images(builder="local_images/even", test="train[:2]")'))
    assert named.fingerprint != found.fingerprint
    assert len(named.splits["test"]) == 2


def test_images_of_other_sizes_are_scaled_where_that_is_asked_for(data_dir):
    directory = data_dir / "local_images/odd/1.0.0"
    with pytest.raises(UserError, match=r"of 2 sizes.*tfds_images\(size=\.\.\.\)"):
        make_dataset(config(directory))
    found = make_dataset(config(directory, "tfds_images(size=3)"))
    images = found.splits["train"].columns["images"].rows
    assert images.shape == (5, 3, 3, 3)
    means = sorted(picture(number, 8 if number else 6).mean() for number in range(5))
    np.testing.assert_allclose(sorted(images.mean(axis=(1, 2, 3))), means, atol=8)


@pytest.mark.parametrize(
    ("place", "source", "says"),
    [
        ("local_images/nameless/1.0.0", "tfds_images", "supervised_keys are None"),
        ("local_images/even/1.0.0", "tfds_images(size=0)", "from 1 to 4,096"),
        ("", 'tfds_images(builder="B")', r"tfds_images\(builder='B'\) must be the name of a set"),
        ("local_images", "tfds_images", r'as in tfds_images\(builder="\.\.\."\)'),
    ],
)
def test_refusals(data_dir, place, source, says):
    with pytest.raises(UserError, match=says):
        make_dataset(config(data_dir / place, source))


def test_neither_name_nor_directory():
    with pytest.raises(UserError, match=r'such as tfds_images\(builder="cifar10"\)'):
        check(DataConfig(source="tfds_images"))
