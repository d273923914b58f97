"""What is learnt, on which data, and how it is judged: an entry of TASKS, which `task.name` chooses."""

from transformer_jax.config import Config
from transformer_jax.tasks.task import Figure, Measured, Metrics, Output, Task
from transformer_jax.tasks.translation import Translation

TASKS: dict[str, Task] = {"translation": Translation()}


def task_of(config: Config) -> Task:
    """The task that a config names."""
    return TASKS[config.task.name]


__all__ = ["TASKS", "Figure", "Measured", "Metrics", "Output", "Task", "task_of"]
