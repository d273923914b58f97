"""Images with labels. N images, H height, W width, K channels."""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from transformer_jax.checked_json import checked, read_json
from transformer_jax.config import DataConfig
from transformer_jax.data.dataset import Dataset
from transformer_jax.data.examples import Column, Examples
from transformer_jax.data.parallel_text import find_directory
from transformer_jax.errors import UserError
from transformer_jax.files import open_regular, write_atomically
from transformer_jax.strict_json import to_json

LABELS = "labels.json"
NO_LABEL = -1
"""Where a batch holds no example."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the images of a set are: names of their classes, and their one shape."""

    names: tuple[str, ...]
    height: int
    width: int
    channels: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all of it."""
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        return to_json(dataclasses.asdict(self), indent=0).encode()

    def sizes(self) -> dict[str, int]:
        """What a model must know of them, by the names of its fields."""
        return {
            "num_classes": len(self.names),
            "image_height": self.height,
            "image_width": self.width,
            "image_channels": self.channels,
        }

    def summary(self) -> dict[str, int]:
        """The same."""
        return self.sizes()

    def save(self, directory: Path) -> None:
        """Writes ``labels.json`` into `directory`."""
        write_atomically(Path(directory) / LABELS, self._content())

    @staticmethod
    def load(directory: Path) -> "Labels":
        """What `save` wrote; UserError if it is missing or malformed."""
        path = Path(directory) / LABELS
        fields = {"names": list[str], "height": int, "width": int, "channels": int}
        content = checked(read_json(path), fields, path)
        names, shape = content["names"], [content[name] for name in ("height", "width", "channels")]
        if len(set(names)) != len(names) or not names or min(shape) < 1:
            raise UserError(f"{path}: damaged; classes have names of their own, and sizes are from 1.")
        return Labels(tuple(names), *shape)


class LabelledImages(NamedTuple):
    """A split: uint8[N, H, W, K] and int64[N]."""

    images: npt.NDArray
    labels: npt.NDArray


class ImageSource:
    """A source of images that are all of one shape: it reads arrays, the rest is the same for all of them.

    The columns are "images", uint8[N, H, W, K], and "labels"; the text "references" of a split that is not trained on
    is the name of each label.
    """

    kind = "images"

    def check(self, config: DataConfig) -> None:
        """Images have no length."""
        if config.batching == "packed":
            raise UserError("data.batching = 'packed': images are not packed; set it to 'length_classes'.")

    def read(self, config: DataConfig) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
        """The splits "train", "valid" and perhaps "test", in this order, and the names of the labels 0, 1, ..."""
        raise NotImplementedError

    def load(self, config: DataConfig, assets: Labels | None = None) -> Dataset:
        """Reads every split.

        Raises:
          UserError: a missing or malformed file, a split without images, or other classes or sizes than `assets` say.
        """
        splits, names = self.read(config)
        for name, split in splits.items():
            if not len(split.labels):
                raise UserError(f"data.source {config.source!r}: the split {name!r} has no image.")
        found = Labels(names, *splits["train"].images.shape[1:])
        if assets not in (None, found):
            raise UserError(f"data.source {config.source!r}: its classes or sizes are not those of the run.")
        examples = {name: _examples(name, split, names) for name, split in splits.items()}
        return Dataset(found, examples, _fingerprint(found, splits))

    def load_assets(self, directory: Path) -> Labels:
        """Those saved with a run."""
        return Labels.load(directory)


def _examples(name: str, split: LabelledImages, names: tuple[str, ...]) -> Examples:
    columns = {
        "images": Column(split.images, fill=0),
        "labels": Column(split.labels.astype(np.int32), fill=NO_LABEL),
    }
    return Examples(columns, {} if name == "train" else {"references": [names[label] for label in split.labels]})


def _fingerprint(labels: Labels, splits: Mapping[str, LabelledImages]) -> str:
    digest = hashlib.sha256(labels.fingerprint.encode())
    for name, split in splits.items():
        digest.update(f"{name} {len(split.labels)}\n".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, np.int64).data)
    return digest.hexdigest()


# --- MNIST ---


@dataclasses.dataclass(frozen=True)
class Mnist(ImageSource):
    """``mnist(valid=10000)``: the four files of MNIST, or of a set that comes in the same ones, plain or gzip.

    Attributes:
      valid: images of the training file that are not trained on, the last ones.
    """

    valid: int = 10_000

    def __post_init__(self) -> None:
        if self.valid < 1:
            raise UserError(f"data.source: mnist(valid={self.valid}) must be at least 1.")

    def read(self, config: DataConfig) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
        """Reads all four files whole."""
        directory = find_directory(config.directory)
        train, test = (_read_pair(directory, name) for name in ("train", "t10k"))
        if test.images.shape[1:] != train.images.shape[1:]:
            raise UserError(f"{directory}: the images of train and t10k are not of one size.")
        kept = len(train.labels) - self.valid
        if kept < 1:
            raise UserError(
                f"data.source: mnist(valid={self.valid}) leaves none of the {len(train.labels):,} training images."
            )
        splits = {
            "train": LabelledImages(train.images[:kept], train.labels[:kept]),
            "valid": LabelledImages(train.images[kept:], train.labels[kept:]),
            "test": test,
        }
        classes = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
        return splits, tuple(map(str, range(max(classes, 2))))


def _read_pair(directory: Path, name: str) -> LabelledImages:
    images = read_idx(directory, f"{name}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(directory, f"{name}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise UserError(f"{directory}: {name} has {len(images):,} images but {len(labels):,} labels.")
    return LabelledImages(images[..., None], labels.astype(np.int64))


def read_idx(directory: Path, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of a file in the idx format: two zeros, 8 for bytes, the dimensions, their sizes, then the bytes.

    Raises:
      UserError: there is neither the file nor its ``.gz``, or it is damaged.
    """
    candidates = [directory / name, directory / f"{name}.gz"]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise UserError(f"{directory}: the file {name} (or {name}.gz) is missing.")
    try:
        with open_regular(path, follow_links=True) as file:
            content = file.read()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch it again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    start = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:start], ">u4").tolist()
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != math.prod(sizes):
        raise UserError(f"{path}: is no idx file of bytes in {dimensions} dimensions, or is cut off; fetch it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


# --- scikit-learn's digits ---


@dataclasses.dataclass(frozen=True)
class Digits(ImageSource):
    """``digits``: 1,797 handwritten digits of 8 x 8 pixels, which come with scikit-learn (UCI, Alpaydin and Kaynak).

    They have no published split: of every five, the fourth is "valid" and the fifth "test". The same people wrote all.
    """

    def read(self, config: DataConfig) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
        """The same at every call."""
        table = _read_digits()
        images = np.round(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        labels = table[:, 64].astype(np.int64)
        fifth = np.arange(len(images)) % 5
        chosen = {"train": fifth < 3, "valid": fifth == 3, "test": fifth == 4}
        splits = {name: LabelledImages(images[rows], labels[rows]) for name, rows in chosen.items()}
        return splits, tuple(map(str, range(10)))


def _read_digits() -> npt.NDArray:
    """[1797, 65]: pixels of 0 to 16 and the label of each digit. The package is not imported, which takes seconds."""
    try:
        package = importlib.metadata.distribution("scikit-learn")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "data.source: digits needs the package scikit-learn; install the extra: pip install '.[digits]'."
        ) from error
    path = Path(str(package.locate_file("sklearn/datasets/data/digits.csv.gz")))
    try:
        return np.loadtxt(path, delimiter=",")
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: the digits of scikit-learn cannot be read from there ({error}).") from error
