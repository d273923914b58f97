"""TASK_CONFIGS: what can be learnt, each with the dataclass of its `task.*`, which `task.name` picks."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from transformer_jax.config.schema import knob

if TYPE_CHECKING:
    from transformer_jax.config.tree import Config


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """What every task has."""

    learns_from: ClassVar[tuple[str, ...]] = ()
    """The kinds of data: what its sources hold. Which of them, the model says by what it reads."""
    writes: ClassVar[bool] = True
    """Whether its outputs are written token by token."""
    judged: ClassVar[bool] = True
    """Whether it has outputs, which metrics can judge."""

    name: str = ""


@dataclasses.dataclass(frozen=True)
class TranslationConfig(TaskConfig):
    """Sentence pairs."""

    learns_from: ClassVar[tuple[str, ...]] = ("pairs",)

    name: Literal["translation"] = knob(
        "translation", "which file of tasks/ says what is learnt; set by the config file"
    )


@dataclasses.dataclass(frozen=True)
class LanguageModellingConfig(TaskConfig):
    """Running text."""

    learns_from: ClassVar[tuple[str, ...]] = ("text",)

    name: Literal["language_modelling"] = knob(
        "language_modelling", "which file of tasks/ says what is learnt; set by the config file"
    )


def _of_images(config: "Config") -> bool:
    return "images" in config.model.reads


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(TaskConfig):
    """Images or sentences, each with its class."""

    learns_from: ClassVar[tuple[str, ...]] = ("images", "sentences")
    writes: ClassVar[bool] = False

    name: Literal["classification"] = knob(
        "classification", "which file of tasks/ says what is learnt; set by the config file"
    )
    shift: int = knob(
        0, "pixels by which each image is moved in training, at most, drawn anew", low=0, high=1000, read_if=_of_images
    )


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModellingConfig(TaskConfig):
    """Running text, of which some tokens are hidden (Devlin et al. 2019, Section 3.1)."""

    learns_from: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[bool] = False
    judged: ClassVar[bool] = False

    name: Literal["masked_language_modelling"] = knob(
        "masked_language_modelling", "which file of tasks/ says what is learnt; set by the config file"
    )
    hidden: float = knob(0.15, "share of the tokens that are hidden and to be named", low=0.001, high=1)
    masked: float = knob(0.8, "share of these in whose place MASK stands", low=0, high=1)
    random: float = knob(0.1, "share of these in whose place any token stands; the rest stands as it is", low=0, high=1)


TASK_CONFIGS: dict[str, type[TaskConfig]] = {
    "translation": TranslationConfig,
    "language_modelling": LanguageModellingConfig,
    "classification": ClassificationConfig,
    "masked_language_modelling": MaskedLanguageModellingConfig,
}
