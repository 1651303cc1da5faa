"""The table of tasks: one line for each kind of model. Its folder is imported when it is asked for."""

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from nexus.core.config import nearest
from nexus.tasks.protocol import Task

TASKS: dict[str, str | type[Task]] = {
    "classification": "nexus.tasks.classification",
    "conversation": "nexus.tasks.conversation",
    "detection": "nexus.tasks.detection",
    "image-text": "nexus.tasks.image_text",
    "masked-image-modeling": "nexus.tasks.masked_images",
    "open-vocabulary-detection": "nexus.tasks.open_vocabulary",
    "promptable-segmentation": "nexus.tasks.promptable",
    "video-segmentation": "nexus.tasks.video_segmentation",
}
"""By name: the folder, whose `TASK` is the kind, or the kind itself. One of your own: `TASKS["mine"] = "my.kind"`."""
PLAIN = "classification"
"""What a module is for that does not say it."""


def find_task(name: str) -> type[Task]:
    """Returns the kind of model that is called `name`.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}. {nearest(name, TASKS)}")
    kind = TASKS[name]
    return importlib.import_module(kind).TASK if isinstance(kind, str) else kind


def get_task(name: str, **settings: Any) -> Task:
    """Returns the task called `name` with its settings: `get_task("classification", class_names=names)`.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    return find_task(name)(**settings)


def task_name(model: nn.Module) -> str:
    """Returns what a model is for, as its class says in `task`; a module that says nothing is a classifier."""
    name = getattr(model, "task", PLAIN)
    return name if isinstance(name, str) else PLAIN


def task_of(model: nn.Module, *shown: Any) -> type[Task]:
    """Returns the kind of a model.

    Args:
        model: May be for several kinds, as its class says in `other_tasks`.
        shown: What it meets: a data set, images or prompts. The first of the other kinds that takes one of them is
            returned, else the kind that the model is for first of all.
    """
    for name in getattr(model, "other_tasks", ()) if shown else ():
        kind = find_task(name)
        if any(kind.takes(one) for one in shown):
            return kind
    return find_task(task_name(model))


def offered_command(name: str) -> Callable[..., None] | None:
    """Returns the command that a kind alone has, of the `COMMANDS` of its folder: a function as Typer takes them."""
    for kind in TASKS.values():
        commands = getattr(importlib.import_module(kind), "COMMANDS", {}) if isinstance(kind, str) else {}
        if name in commands:
            return commands[name]
    return None


def offered(name: str) -> Any:
    """Returns what one kind alone offers under this name, in the `OFFERS` of its folder.

    Raises:
        AttributeError: No kind offers it.
    """
    for kind in TASKS.values():
        offers = getattr(importlib.import_module(kind), "OFFERS", {}) if isinstance(kind, str) else {}
        if name in offers:
            return offers[name]
    raise AttributeError(f"No kind of model offers {name!r}.")
