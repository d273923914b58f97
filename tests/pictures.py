"""Small images and sentences with labels, as files in the formats of MNIST and of lines with tabs."""

import functools
import gzip
import tempfile
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, CLASSES = 6, 4, 3


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8[count, 6, 4] and uint8[count]: noise, and a bright pair of rows that tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % CLASSES
    images = rng.integers(160, size=(count, HEIGHT, WIDTH), dtype=np.uint8)
    bright = np.arange(HEIGHT) // 2 == labels[:, None]
    return images + np.uint8(90) * bright[:, :, None].astype(np.uint8), labels


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes bytes as idx, gzip if the name ends in .gz."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_set(directory: Path, train: int = 120, test: int = 12, suffix: str = ".gz") -> Path:
    """The four files of a set of made-up images."""
    for seed, (name, count) in enumerate({"train": train, "t10k": test}.items()):
        images, labels = made_up(count, seed)
        write_idx(directory / f"{name}-images-idx3-ubyte{suffix}", images)
        write_idx(directory / f"{name}-labels-idx1-ubyte{suffix}", labels)
    return directory


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def directory() -> Path:
    """Such a set. Read only: many tests read it."""
    return write_set(Path(_temporary().name))


# --- Sentences ---

WORDS = {"A:x": "an apple or a pear", "B": "walks and runs and sleeps", "C:y": "red green blue"}
"""Label -> of what words its sentences are."""


def lines(count: int, seed: int) -> list[str]:
    """Lines of label, tab and a sentence of 1 to 7 words."""
    rng, labels = np.random.default_rng(seed), list(WORDS)
    made = []
    for number in range(count):
        label = labels[number % len(labels)]
        words = rng.choice(WORDS[label].split(), rng.integers(1, 8))
        made.append(f"{label}\t{' '.join(words)}\n")
    return made


@functools.cache
def sentences() -> Path:
    """A directory of them, with train.tsv and test.tsv. Read only."""
    place = Path(_temporary().name) / "sentences"
    place.mkdir()
    for seed, (name, count) in enumerate({"train": 120, "test": 12}.items()):
        (place / f"{name}.tsv").write_text("".join(lines(count, seed)))
    return place
