"""Image sets of TensorFlow Datasets."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from transformer_jax.config import DataConfig
from transformer_jax.data.images import ImageSource, LabelledImages
from transformer_jax.data.tfds_set import TfdsSet, examples_of, saying
from transformer_jax.errors import UserError

LARGEST_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class TfdsImages(TfdsSet, ImageSource):
    """``tfds_images(builder="cifar10", valid="train[:10%]", train="train[10%:]")``. Options as for `TfdsSet`.

    Attributes:
      size: height and width that each image is scaled to; unset: they stay as they are, and must be of one size.
    """

    entry: ClassVar[str] = "tfds_images"
    example: ClassVar[str] = "cifar10"

    size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and not (type(self.size) is int and 1 <= self.size <= LARGEST_SIZE):
            raise UserError(
                f"data.source: tfds_images(size={self.size!r}) must be a whole number from 1 to {LARGEST_SIZE:,}."
            )

    def check(self, config: DataConfig) -> None:
        """Something must say which set is meant."""
        super().check(config)
        self.check_named(config)

    def read(self, config: DataConfig) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
        """Reads every split whole."""
        builder, names = self.open(config)
        image, label = _features(builder)
        classes = tuple(builder.info.features[label].names)
        return {name: self._read_split(builder, spec, image, label) for name, spec in names.items()}, classes

    def _read_split(self, builder: Any, spec: str, image: str, label: str) -> LabelledImages:
        images, labels = [], []
        for index, example in enumerate(examples_of(builder, spec)):
            with saying(f"{builder.data_dir}: the image of example {index} of {spec!r} cannot be read"):
                images.append(np.asarray(example[image]) if self.size is None else _scaled(example[image], self.size))
                labels.append(int(example[label]))
        if not images:
            raise UserError(f"data.source: {builder.info.full_name}: the split {spec!r} has no image.")
        shapes = {array.shape for array in images}
        if len(shapes) > 1 or images[0].dtype != np.uint8:
            found = f"of {len(shapes)} sizes" if len(shapes) > 1 else f"of {images[0].dtype}"
            raise UserError(
                f"data.source: {builder.info.full_name}: the images of {spec!r} are {found}; what is read are bytes "
                "of one size: give one by tfds_images(size=...)."
            )
        return LabelledImages(np.stack(images), np.asarray(labels, np.int64))


def _features(builder: Any) -> tuple[str, str]:
    """The names of the image and of its label."""
    pair = builder.info.supervised_keys
    if pair is not None and len(pair) == 2 and all(isinstance(name, str) for name in pair):
        image, label = pair
        if hasattr(builder.info.features[label], "names") and len(builder.info.features[image].shape or ()) == 3:
            return image, label
    raise UserError(
        f"data.source: {builder.info.full_name} does not say that it is images with a class each: its supervised_keys "
        f"are {pair!r}."
    )


def _scaled(image: npt.NDArray, size: int) -> npt.NDArray[np.uint8]:
    """[size, size, K], by linear interpolation."""
    from PIL import Image

    grey = image.shape[-1] == 1
    made = Image.fromarray(image[..., 0] if grey else image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(made)[..., None] if grey else np.asarray(made)
