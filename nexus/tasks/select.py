"""From a name, or a model, to its task."""

from typing import Any

from torch import nn

from nexus.core.config import nearest
from nexus.core.module import NexusModule
from nexus.tasks.classification import ClassificationTask
from nexus.tasks.protocol import Task

TASKS: dict[str, type[Task]] = {"classification": ClassificationTask}


def get_task(name: str, **settings: Any) -> Task:
    """Returns the task called `name` with its settings: `get_task("classification", class_names=names)`.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}. {nearest(name, TASKS)}")
    return TASKS[name](**settings)


def task_name(model: nn.Module) -> str:
    """Returns the task on the model's card, or "classification" for a model without a card."""
    if isinstance(model, NexusModule) and model.card is not None:
        return model.card.task
    return "classification"
