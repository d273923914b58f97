"""What is learnt, on which data, and how it is judged: an entry of TASKS, which `task.name` chooses."""

from transformer_jax.config import Config
from transformer_jax.data import make_source
from transformer_jax.errors import UserError
from transformer_jax.tasks.classification import Classification
from transformer_jax.tasks.language_modelling import LanguageModelling
from transformer_jax.tasks.masked_language_modelling import MaskedLanguageModelling
from transformer_jax.tasks.task import Figure, Measured, Metrics, Output, Task
from transformer_jax.tasks.translation import Translation

TASKS: dict[str, Task] = {
    "translation": Translation(),
    "language_modelling": LanguageModelling(),
    "classification": Classification(),
    "masked_language_modelling": MaskedLanguageModelling(),
}


def task_of(config: Config) -> Task:
    """The task that a config names."""
    return TASKS[config.task.name]


def check(config: Config) -> None:
    """Refuses a task that the model cannot learn, or the data do not hold, and what the task itself refuses.

    Raises:
      UserError: naming the field, what was found and what is allowed.
    """
    name, task = config.task.name, task_of(config)
    if config.model.family not in task.families:
        raise UserError(
            f"model.family = {config.model.family!r} cannot learn task.name = {name!r}, which is for "
            f"{', '.join(task.families)}."
        )
    holds = make_source(config.data).kind
    wanted = [kind for kind in config.task.learns_from if kind in config.model.reads]
    if holds not in wanted:
        raise UserError(
            f"data.source = {config.data.source!r} holds {holds}, but task.name = {name!r} learns from "
            f"{' or '.join(wanted)}"
            + (f" with model.family = {config.model.family!r}." if len(config.task.learns_from) > 1 else ".")
        )
    task.check(config)


__all__ = ["TASKS", "Figure", "Measured", "Metrics", "Output", "Task", "check", "task_of"]
