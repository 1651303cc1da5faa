"""From a name, or a model, to its task."""

from typing import Any

from torch import nn

from nexus.core.config import nearest
from nexus.core.module import NexusModule
from nexus.tasks.classification import ClassificationTask
from nexus.tasks.detection import DetectionTask
from nexus.tasks.image_text import ImageTextTask
from nexus.tasks.masked_images import MaskedImageTask
from nexus.tasks.protocol import Task

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "image-text": ImageTextTask,
    "masked-image-modeling": MaskedImageTask,
}


def get_task(name: str, **settings: Any) -> Task:
    """Returns the task called `name` with its settings: `get_task("classification", class_names=names)`.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}. {nearest(name, TASKS)}")
    return TASKS[name](**settings)


def task_name(model: nn.Module) -> str:
    """Returns the task of a model of the zoo, and "classification" for any other module."""
    return model.task if isinstance(model, NexusModule) else "classification"
