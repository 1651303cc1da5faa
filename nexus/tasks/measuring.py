"""The one loop that measures a model, alone or in training."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from nexus.data.batch import batch_length
from nexus.tasks.protocol import Metrics, Task


@torch.no_grad()
def measure(
    task: Task,
    model: nn.Module,
    batches: Iterable[Any],
    place: Callable[[Any], Any],
    running: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Metrics:
    """Returns the task's metrics of this process's batches; the caller synchronizes them.

    Args:
        task: Says what is measured.
        model: In evaluation mode.
        batches: A share without items is left out.
        place: Brings a batch to the model's device.
        running: Context that the model runs in, such as autocast.
    """
    with torch.inference_mode(False):  # what they add up is added to later, outside of it
        metrics = task.metrics()
    with running():
        session = task.session(model)
    for batch in batches:
        if batch_length(batch):
            placed = place(batch)
            with running():
                outputs = session.outputs(placed)
            metrics.update(outputs, placed)
    return metrics
