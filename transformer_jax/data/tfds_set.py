"""Sets of TensorFlow Datasets, read through their random-access data source: TensorFlow is not needed."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from transformer_jax.config import DataConfig
from transformer_jax.data.parallel_text import find_directory
from transformer_jax.data.tfds_check import check_prepared, check_shards
from transformer_jax.errors import UserError

VALID_NAMES = ("validation", "valid", "dev")
SET_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w+.-]*\w[\w+.-]*)?(:(\d+|\*)(\.(\d+|\*)){2})?")


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """Which set is meant, where it lies, and which of its splits are read.

    Attributes:
      builder: name of the set, with its config; ``data.directory`` is then TFDS's data directory (unset: TFDS's own
        default), and training downloads a set that is not there yet, but nothing else does. Unset: ``data.directory``
        is a prepared set itself, the directory that holds ``dataset_info.json``.
      train, valid, test: splits in the notation of TFDS, such as "train[1%:]". Unset valid: "validation", "valid" or
        "dev"; unset test: "test" where there is one.
    """

    entry: ClassVar[str]  # of SOURCES
    example: ClassVar[str]  # of a set

    builder: str | None = None
    train: str = "train"
    valid: str | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        for field in ("builder", "valid", "test"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise UserError(f"data.source: {self.entry}({field}={value!r}) must be a string.")
        # What else TFDS takes for a name leads to code from elsewhere ("huggingface:x"), or to arguments of a builder.
        if self.builder is not None and not SET_NAME.fullmatch(self.builder):
            raise UserError(
                f"data.source: {self.entry}(builder={self.builder!r}) must be the name of a set of TFDS in small "
                f'letters, with its config and version where it has them: "{self.example}:1.0.0".'
            )

    def check_named(self, config: DataConfig) -> None:
        """Something must say which set is meant."""
        if self.builder is None and config.directory is None:
            raise UserError(
                f'data.source: name a set, such as {self.entry}(builder="{self.example}"), or set data.directory to '
                "the directory of a prepared one."
            )

    def open(self, config: DataConfig) -> tuple[Any, dict[str, str]]:
        """The set, prepared if it is not yet, and which of its splits are ours."""
        tfds = _import_tfds()
        builder = self._builder(tfds, config)
        if self.builder is not None and not builder.info.splits:
            _prepare(builder, self.builder)
        check_shards(builder)
        names = {"train": self.train, "valid": self.valid or self._valid_name(builder)}
        if self.test or "test" in builder.info.splits:
            names["test"] = self.test or "test"
        return builder, names

    def check_there(self, config: DataConfig) -> None:
        """Refuses a set that `open` would download."""
        if self.builder is None:
            return
        builder = self._builder(_import_tfds(), config)
        if not builder.info.splits:
            raise UserError(
                f"data.source: {self.builder!r} is not prepared in {builder.data_dir}, and only training downloads it. "
                "Name the directory that it was prepared in by --config.data.directory."
            )

    def _builder(self, tfds: ModuleType, config: DataConfig) -> Any:
        if self.builder is None:
            directory = find_directory(config.directory)
            if not (directory / "dataset_info.json").is_file():
                raise UserError(
                    f"data.directory: {directory} has no dataset_info.json, so it is not a prepared TFDS set; give the "
                    f'directory of one version, or name the set as in {self.entry}(builder="...").'
                )
            check_prepared(tfds, directory)
            with saying(f"{directory}: TFDS cannot read this set"):
                return tfds.builder_from_directory(directory)
        data_dir = None if config.directory is None else Path(config.directory).expanduser()
        for root in tfds.core.utils.file_utils.list_data_dirs(data_dir):
            check_prepared(tfds, Path(root) / re.split("[/:]", self.builder)[0])
        not_found = tfds.core.registered.DatasetNotFoundError
        try:
            with saying(f"data.source: TFDS refuses {self.builder!r}", not_found, ImportError):
                builder = tfds.builder(self.builder, data_dir=data_dir, file_format="array_record")
        except (not_found, ImportError) as error:
            raise UserError(_not_found(self.builder)) from error
        return builder

    def _valid_name(self, builder: Any) -> str:
        for name in VALID_NAMES:
            if name in builder.info.splits:
                return name
        raise UserError(
            f"data.source: {builder.info.full_name} has no validation split, only {', '.join(builder.info.splits)}; "
            f'cut one from train: {self.entry}(train="train[2%:]", valid="train[:2%]").'
        )


def _import_tfds() -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            "data.source: tfds needs the package tensorflow-datasets; install the extra: pip install '.[tfds]'."
        ) from error
    return tensorflow_datasets


def _not_found(name: str) -> str:
    # Without TensorFlow, TFDS reports the sets of its older packages as unknown; the two cases cannot be told apart.
    return (
        f"data.source: TFDS finds no set {name!r}. If the name is right, preparing it needs TensorFlow (the WMT sets "
        f"do): once, with pip install '.[tf]', run tfds.builder({name!r}, file_format=\"array_record\")"
        ".download_and_prepare(); from then on it is read without TensorFlow, by setting data.directory to the "
        "directory of the prepared version and data.source to tfds."
    )


def _prepare(builder: Any, name: str) -> None:
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS and its network clients raise anything here
        raise UserError(
            f"data.source: TFDS could not download and prepare {name!r} in {builder.data_dir}: {_first_line(error)} "
            "Prepare it where there is a network, and set data.directory to the prepared version."
        ) from error


def examples_of(builder: Any, spec: str) -> Iterator[Mapping[str, Any]]:
    """The examples of a split; UserError if there is none of that name, or one cannot be read."""
    try:
        with saying(f"data.source: {builder.info.full_name}: no split {spec!r}", NotImplementedError):
            examples: Sequence[Mapping[str, Any]] = builder.as_data_source(split=spec)
    except NotImplementedError as error:
        raise UserError(
            f"{builder.data_dir}: is stored in a format without random access; prepare the set again with "
            'file_format="array_record".'
        ) from error
    for index in range(len(examples)):
        with saying(f"{builder.data_dir}: example {index} of {spec!r} cannot be read"):
            example = examples[index]
        yield example


@contextlib.contextmanager
def saying(what: str, *passed: type[Exception]) -> Iterator[None]:
    """Makes a UserError that begins with `what` of all that TFDS and the libraries below it raise, but of `passed`."""
    try:
        yield
    except UserError:
        raise
    except passed:
        raise
    except Exception as error:  # what they raise where files are not as they wrote them is anything
        raise UserError(f"{what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
