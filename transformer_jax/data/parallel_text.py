"""Parallel text: a directory with files ``<split>.<language>``, plain or gzip, whose lines correspond."""

import contextlib
import dataclasses
import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.pairs import PairSource
from transformer_jax.errors import UserError
from transformer_jax.files import open_regular

DATA_VARIABLE = "TRANSFORMER_JAX_DATA"
VALID_NAMES = ("val", "valid", "dev", "validation")


@dataclasses.dataclass(frozen=True)
class ParallelText(PairSource):
    """``parallel_text(test=None)``: "train", one of `VALID_NAMES`, and a test split whose name begins with "test".

    Attributes:
      test: name of the test split, such as "test_2016_flickr"; needed only where there are several.
    """

    test: str | None = None

    def __post_init__(self) -> None:
        if self.test is not None and not isinstance(self.test, str):
            raise UserError(f"data.source: parallel_text(test={self.test!r}) must be the name of a split.")

    def check(self, config: DataConfig) -> None:
        """The two languages must differ."""
        super().check(config)
        check_languages(config)

    def read(self, config: DataConfig) -> dict[str, TextSplit]:
        """Reads every split whole."""
        directory = find_directory(config.directory)
        languages = config.source_language, config.target_language
        names = {"train": "train", "valid": _valid_name(directory, languages)}
        if test := self._test_name(directory, languages):
            names["test"] = test
        return {split: _read_pair(directory, name, languages) for split, name in names.items()}

    def _test_name(self, directory: Path, languages: tuple[str, str]) -> str | None:
        if self.test is not None:
            return self.test
        found = {
            name.removesuffix(f".{language}")
            for name in (path.name.removesuffix(".gz") for path in directory.iterdir())
            for language in languages
            if name.startswith("test") and name.endswith(f".{language}")
        }
        complete = sorted(name for name in found if _is_complete(directory, name, languages))
        if len(complete) > 1:
            raise UserError(
                f"data.source: {directory} has several test splits, {', '.join(complete)}; "
                f'choose one, for instance "parallel_text(test={complete[0]!r})".'
            )
        # Half a test split alone is refused by the reader, with the name of the missing file.
        return next(iter(complete or sorted(found)), None)


def check_languages(config: DataConfig) -> None:
    """UserError unless source and target language differ."""
    if config.source_language == config.target_language:
        raise UserError(
            f"data.source_language and data.target_language are both {config.source_language!r}; they must differ."
        )


def find_directory(directory: str | None) -> Path:
    """`data.directory` as given or below $TRANSFORMER_JAX_DATA; unset: $TRANSFORMER_JAX_DATA itself."""
    root = os.environ.get(DATA_VARIABLE)
    if directory is None:
        if not root:
            raise UserError(f"data.directory is not set, and neither is {DATA_VARIABLE}: say where the corpus is.")
        candidates = [Path(root)]
    else:
        given = Path(directory).expanduser()
        candidates = [given] if given.is_absolute() or not root else [given, Path(root) / given]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    hint = "" if root else f" {DATA_VARIABLE}, under which a relative path is looked up too, is not set."
    raise UserError(f"data.directory: no directory {' or '.join(map(str, candidates))}.{hint}")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, gzip if its name ends in .gz; see `decode_lines`.

    Of pipes only those that the shell made for this process are read, as in ``--source=<(head file)``.

    Raises:
      UserError: unreadable, damaged gzip or invalid UTF-8, with the number of the line.
    """
    own = str(path).startswith(("/dev/fd/", "/dev/stdin"))
    try:
        with (
            path.open("rb") if own else open_regular(path, follow_links=True) as file,
            gzip.open(file) if path.suffix == ".gz" else contextlib.nullcontext(file) as stream,
        ):
            return decode_lines(cast(BinaryIO, stream), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def decode_lines(stream: BinaryIO, name: str) -> list[str]:
    """The lines of a stream of UTF-8 text, without line ends and outer blanks; `name` is its name in messages.

    Only LF (or CR LF) ends a line: other separators of Unicode occur inside sentences, and a reader that breaks at them
    puts every later pair out of step.

    Raises:
      UserError: damaged gzip or invalid UTF-8, with the number of the line.
    """
    lines: list[str] = []
    try:
        for number, raw in enumerate(stream, start=1):
            # A byte order mark, as some editors write it, is not part of the first sentence.
            lines.append(raw.decode("utf-8-sig" if number == 1 else "utf-8").strip())
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, line {len(lines) + 1}: invalid UTF-8 at byte {error.start + 1} of the line; re-encode the file."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name}, line {len(lines) + 1}: damaged gzip file ({error}); fetch it again.") from error
    return lines


def read_parallel(source: Path, target: Path, *, written: bool = False) -> TextSplit:
    """Two files whose lines correspond; UserError if their numbers of lines differ or a file is empty.

    `written`: the first is what a model wrote, who may have found no word for any line.
    """
    sides = [(path, read_lines(path)) for path in (source, target)]
    for number, (path, lines) in enumerate(sides):
        if not (lines if written and number == 0 else any(lines)):
            raise UserError(f"{path}: the file is empty; every line should hold a sentence.")
    (short, few), (long, many) = sorted(sides, key=lambda side: len(side[1]))
    if len(few) != len(many):
        raise UserError(
            f"{long}, line {len(few) + 1}: has no partner in {short}, which ends after {len(few)} lines "
            f"where {long.name} has {len(many)}."
        )
    return TextSplit(sides[0][1], sides[1][1])


def _valid_name(directory: Path, languages: tuple[str, str]) -> str:
    found = [name for name in VALID_NAMES if _is_complete(directory, name, languages)]
    if len(found) > 1:
        raise UserError(f"{directory}: has several validation splits, {', '.join(found)}; keep one.")
    if not found:
        source, target = languages
        raise UserError(
            f"{directory}: no validation split; looked for {', '.join(f'{n}.{source}' for n in VALID_NAMES)} "
            f"with partners in {target!r}, plain or .gz."
        )
    return found[0]


def _is_complete(directory: Path, name: str, languages: tuple[str, str]) -> bool:
    return all(_find(directory, name, language) for language in languages)


def _find(directory: Path, name: str, language: str) -> Path | None:
    """The plain file if there is one, else the gzip file, else None."""
    candidates = (directory / f"{name}.{language}{suffix}" for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_pair(directory: Path, name: str, languages: tuple[str, str]) -> TextSplit:
    paths = [_find(directory, name, language) for language in languages]
    for path, language in zip(paths, languages, strict=True):
        if path is None:
            raise UserError(f"{directory}: the file {name}.{language} (or {name}.{language}.gz) is missing.")
    source, target = cast(list[Path], paths)
    return read_parallel(source, target)
