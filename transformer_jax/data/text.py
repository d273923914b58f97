"""Running text, for a language model: windows of one file."""

import dataclasses
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transformer_jax.config import DataConfig
from transformer_jax.data.dataset import Dataset
from transformer_jax.data.examples import Column, Examples
from transformer_jax.data.parallel_text import find_directory
from transformer_jax.data.ragged import Int32Array, Ragged, Sequences, Windows
from transformer_jax.data.tokenizer import Tokenizer
from transformer_jax.data.tokenizers import TokenizerPair, resolve_tokenizer
from transformer_jax.errors import UserError
from transformer_jax.files import open_regular
from transformer_jax.vocabulary import EOS, UNK


@dataclasses.dataclass(frozen=True)
class Text:
    """``text(file="input.txt", valid=0.1)``: a file of UTF-8 text, plain or gzip, whose last part is "valid".

    An example is a window of `data.max_length` tokens, "inputs", with the token after each of them, "targets". A
    training window may begin at any token; "valid" is cut into windows, in which each token is a target once. Its text
    "references" is what follows the first half of each window. See `encode_text` for line breaks.

    Attributes:
      file: its name in `data.directory`.
      valid: the share of its characters, the last ones, that is not trained on.
    """

    file: str = "input.txt"
    valid: float = 0.1
    kind = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not self.file.strip() or "\0" in self.file:
            raise UserError(f"data.source: text(file={self.file!r}) must be the name of a file.")
        if not 0 < self.valid < 1:
            raise UserError(f"data.source: text(valid={self.valid}) must be above 0 and below 1.")

    def check(self, config: DataConfig) -> None:
        """Windows have no padding that packing could save."""
        resolve_tokenizer(config)
        if config.batching == "packed":
            raise UserError(
                "data.batching = 'packed': the windows of data.source = 'text' are full already; set it to "
                "'length_classes'."
            )

    def load(self, config: DataConfig, assets: TokenizerPair | None = None) -> Dataset:
        """Reads the file, trains the tokenizer on its training part unless it is given, and cuts both parts."""
        path = find_directory(config.directory) / self.file
        text, width = _read(path), config.max_length
        end = len(text) - round(self.valid * len(text))
        parts = {"train": text[:end], "valid": text[end:]}
        trainer, lines = resolve_tokenizer(config), _lines(parts["train"])
        if assets is None:
            tokenizer = trainer.train(lines)
            assets = TokenizerPair(tokenizer, tokenizer)
        tokens = {name: np.asarray(encode_text(part, assets.target), np.int32) for name, part in parts.items()}
        for name, of_split in tokens.items():
            if len(of_split) <= width:
                raise UserError(
                    f"{path}: {name} has {len(of_split):,} tokens, too few for a window of data.max_length = {width:,} "
                    "and the token after it."
                )
        splits = {
            "train": _every_window(tokens["train"], width),
            "valid": _windows_in_a_row(tokens["valid"], width, assets.target),
        }
        digest = hashlib.sha256(f"{self.valid} {width} {assets.fingerprint} ".encode() + text.encode())
        return Dataset(assets, splits, digest.hexdigest(), left_out_of_tokenizer=trainer.left_out(lines))

    def load_assets(self, directory: Path) -> TokenizerPair:
        """The tokenizer saved with a run."""
        return TokenizerPair.load(directory)


def _read(path: Path) -> str:
    try:
        with open_regular(path, follow_links=True) as file:
            content = file.read()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: invalid UTF-8 at byte {error.start + 1}; re-encode the file.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch it again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _lines(text: str) -> list[str]:
    """The lines with their ends. (`splitlines` ends them at other characters too.)"""
    *ended, last = text.split("\n")
    return [line + "\n" for line in ended] + ([last] if last else [])


def encode_text(text: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a running text; where the tokenizer knows no line break, as `words`, EOS stands for each.

    Else it is encoded as a whole: SentencePiece begins every text that it is given with a blank of its own.
    """
    if tokenizer.encode(["\n"])[0] not in ([], [UNK]):
        return tokenizer.encode([text])[0]
    lines = tokenizer.encode(text.split("\n"))
    return list(itertools.chain.from_iterable([*line, EOS] for line in lines))[:-1]


def decode_text(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The inverse of `encode_text`, as far as the tokenizer keeps a text."""
    ends = [place for place, token in enumerate(tokens) if token == EOS]
    starts = [0, *(end + 1 for end in ends)]
    return "\n".join(
        tokenizer.decode(tokens[start:end]) for start, end in zip(starts, [*ends, len(tokens)], strict=True)
    )


def _examples(inputs: Sequences, targets: Sequences, references: list[str] | None = None) -> Examples:
    columns = {name: Column(rows, side="inputs") for name, rows in (("inputs", inputs), ("targets", targets))}
    return Examples(columns, {} if references is None else {"references": references})


def _every_window(tokens: Int32Array, width: int) -> Examples:
    starts = np.arange(len(tokens) - width)
    return _examples(Windows(tokens, starts, width), Windows(tokens, starts + 1, width))


def _windows_in_a_row(tokens: Int32Array, width: int, tokenizer: Tokenizer) -> Examples:
    offsets = np.append(np.arange(0, len(tokens) - 1, width), len(tokens) - 1)
    ends = np.minimum(offsets[:-1] + width, offsets[1:])
    references = [
        tokenizer.decode(tokens[start + width // 2 : end].tolist())
        for start, end in zip(offsets[:-1], ends, strict=True)
    ]
    return _examples(Ragged(tokens[:-1], offsets), Ragged(tokens[1:], offsets), references)
