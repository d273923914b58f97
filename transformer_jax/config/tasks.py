"""TASK_CONFIGS: what can be learnt, each with the dataclass of its `task.*`, which `task.name` picks."""

import dataclasses
from typing import ClassVar, Literal

from transformer_jax.config.schema import knob


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """What every task has."""

    learns_from: ClassVar[str] = ""
    """The kind of data: what its sources hold."""
    writes: ClassVar[bool] = True
    """Whether its outputs are written token by token."""

    name: str = ""


@dataclasses.dataclass(frozen=True)
class TranslationConfig(TaskConfig):
    """Sentence pairs."""

    learns_from: ClassVar[str] = "pairs"

    name: Literal["translation"] = knob(
        "translation", "which file of tasks/ says what is learnt; set by the config file"
    )


@dataclasses.dataclass(frozen=True)
class LanguageModellingConfig(TaskConfig):
    """Running text."""

    learns_from: ClassVar[str] = "text"

    name: Literal["language_modelling"] = knob(
        "language_modelling", "which file of tasks/ says what is learnt; set by the config file"
    )


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(TaskConfig):
    """Images, each with its class."""

    learns_from: ClassVar[str] = "images"
    writes: ClassVar[bool] = False

    name: Literal["classification"] = knob(
        "classification", "which file of tasks/ says what is learnt; set by the config file"
    )
    shift: int = knob(0, "pixels by which each image is moved in training, at most, drawn anew", low=0, high=1000)


TASK_CONFIGS: dict[str, type[TaskConfig]] = {
    "translation": TranslationConfig,
    "language_modelling": LanguageModellingConfig,
    "classification": ClassificationConfig,
}
