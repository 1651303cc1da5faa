"""The one loop that measures a model, alone or in training."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from nexus.data.batch import batch_length
from nexus.tasks.protocol import Averaged, Metrics, Task


@torch.no_grad()
def measure(
    task: Task,
    model: nn.Module,
    batches: Iterable[Any],
    place: Callable[[Any], Any],
    running: Callable[[], AbstractContextManager[Any]] = nullcontext,
    flip: bool = False,
) -> Metrics:
    """Returns the task's metrics of this process's batches; the caller synchronizes them.

    Args:
        task: Says what is measured.
        model: In evaluation mode.
        batches: A share without items is left out.
        place: Brings a batch to the model's device.
        running: Context that the model runs in, such as autocast.
        flip: Look at each image mirrored too, and measure the mean of both answers.

    Raises:
        ValueError: Answers of this kind have no mean.
    """
    if flip and not isinstance(task, Averaged):
        raise ValueError(f"flip takes the mean of two answers, and those of a model for {task.name} have none.")
    with torch.inference_mode(False):  # what they add up is added to later, outside of it
        metrics = task.metrics()
    with running():
        session = task.session(model)
    for batch in batches:
        if batch_length(batch):
            placed = place(batch)
            with running():
                outputs = session.outputs(placed)
                if flip and isinstance(task, Averaged):
                    mirrored = session.outputs({**placed, "images": placed["images"].flip(-1)})
                    outputs = task.mean_answer([outputs, mirrored])
            metrics.update(outputs, placed)
    return metrics
