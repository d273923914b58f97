"""From text to ids, cached on disk by the hash of what they were made of.

Losing the cache costs seconds, never a result.
"""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np

from transformer_jax.data.corpus import Corpus
from transformer_jax.data.ragged import Ragged
from transformer_jax.data.tokenizer import Tokenizer
from transformer_jax.data.tokenizers import TokenizerPair
from transformer_jax.files import open_regular, write_atomically
from transformer_jax.vocabulary import EOS

# Sentences encoded at once: lists of Python integers take ten times the memory of the arrays they become.
CHUNK = 8192
# With fewer training pairs, encoding again is as fast as reading the cache.
SMALLEST_CACHED = 20_000
FORMAT = "transformer_jax encoding 2"

Sides = tuple[Ragged, Ragged]  # inputs, targets


def encode(texts: list[str], tokenizer: Tokenizer) -> Ragged:
    """The ids of each text, and EOS after them; a blank text has no ids of its own."""
    chunks = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
    return Ragged.concatenate([Ragged.from_rows(_rows(chunk, tokenizer)) for chunk in chunks])


def _rows(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [[*ids, EOS] if text.strip() else [EOS] for text, ids in zip(texts, tokenizer.encode(texts), strict=True)]


def fingerprint(corpus: Corpus, tokenizers: TokenizerPair) -> str:
    """SHA-256 (hex): two datasets with equal ones have the same ids."""
    return hashlib.sha256(f"{corpus.fingerprint} {tokenizers.fingerprint}".encode()).hexdigest()


def encode_corpus(corpus: Corpus, tokenizers: TokenizerPair) -> dict[str, Sides]:
    """Every split, untruncated; large corpora come from the cache directory, or go to it."""
    if len(corpus.splits["train"]) < SMALLEST_CACHED:
        return _encode_all(corpus, tokenizers)
    key = hashlib.sha256(f"{FORMAT} {fingerprint(corpus, tokenizers)}".encode()).hexdigest()
    path = cache_directory() / f"{key}.npz"
    cached = _read(path, corpus)
    if cached is None:
        cached = _encode_all(corpus, tokenizers)
        _write(path, cached)
    return cached


def cache_directory() -> Path:
    """Where encoded corpora are kept; may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "transformer_jax"


def _encode_all(corpus: Corpus, tokenizers: TokenizerPair) -> dict[str, Sides]:
    return {
        name: (encode(split.sources, tokenizers.source), encode(split.references, tokenizers.target))
        for name, split in corpus.splits.items()
    }


def _read(path: Path, corpus: Corpus) -> dict[str, Sides] | None:
    """None if there is no cache or it is damaged (the members of an npz file carry checksums)."""
    try:
        with open_regular(path, follow_links=True) as file, np.load(file, allow_pickle=False) as arrays:
            splits = {
                name: tuple(Ragged(arrays[f"{name}/{side}/values"], arrays[f"{name}/{side}/offsets"]) for side in "ST")
                for name in corpus.splits
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return {name: (inputs, targets) for name, (inputs, targets) in splits.items()}


def _write(path: Path, splits: dict[str, Sides]) -> None:
    arrays = {
        f"{name}/{side}/{field}": getattr(ragged, field)
        for name, sides in splits.items()
        for side, ragged in zip("ST", sides, strict=True)
        for field in ("values", "offsets")
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    try:
        write_atomically(path, content.getvalue())
    except OSError:
        return  # read-only home, full disk: the next run encodes again
