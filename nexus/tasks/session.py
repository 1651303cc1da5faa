"""Models that are shown images one after another."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nexus.data.detection.batches import stack_images
from nexus.tasks.source import as_input, evaluating
from nexus.tasks.views import Batch, ImageInfo, Outputs, View


class Session(Protocol):
    """A model that is shown images one after another. What it remembers from one to the next lives here alone."""

    def push(self, view: View) -> Any:
        """Returns what the model says about one image: a `Result`."""
        ...

    def push_all(self, views: Sequence[View]) -> Sequence[Any]:
        """Returns what `push` says of each, in order; a session without memory runs the model once."""
        ...

    def outputs(self, batch: Batch) -> Outputs:
        """Returns the model's outputs for `Metrics.update`."""
        ...


@runtime_checkable
class Ending(Protocol):
    """A session that has something to say when no more images come."""

    def end(self) -> None:
        """Is called after the last image of a sequence; raises ValueError where something was asked that never came."""
        ...


class Asked(Protocol):
    """What a session asks of its task."""

    def predict(self, model: nn.Module, batch: Batch) -> Outputs: ...

    def results(self, outputs: Outputs, infos: Sequence[ImageInfo]) -> Sequence[Any]: ...


class Stateless:
    """Remembers nothing: every image is seen alone, many at once are one batch."""

    def __init__(self, task: Asked, model: nn.Module) -> None:
        self.task, self.model = task, model

    def push(self, view: View) -> Any:
        """Returns what the model says about one image."""
        return self.push_all([view])[0]

    def push_all(self, views: Sequence[View]) -> Sequence[Any]:
        """Returns what the model says about each image; it sees as one batch those that may stand in one."""
        found: dict[int, Any] = {}
        with evaluating(self.model):
            for group in _groups(self.model, views):
                outputs = self.outputs(view_batch([views[at] for at in group], self.model))
                found.update(zip(group, self.task.results(outputs, [views[at].info for at in group]), strict=True))
        return [found[at] for at in range(len(views))]

    def outputs(self, batch: Batch) -> Outputs:
        """Returns the model's outputs."""
        return self.task.predict(self.model, batch)


class OneByOne:
    """Base of sessions with memory: images are shown in order, one at a time; a subclass says what `push` does."""

    def __init__(self, task: Asked, model: nn.Module) -> None:
        self.task, self.model = task, model

    def push(self, view: View) -> Any:
        """Returns what the model says about the next image."""
        raise NotImplementedError

    def push_all(self, views: Sequence[View]) -> Sequence[Any]:
        """Returns what `push` says of each, in order."""
        return [self.push(view) for view in views]

    def outputs(self, batch: Batch) -> Outputs:
        """Returns the model's outputs for a batch of a data set, whose items do not know of each other."""
        return self.task.predict(self.model, batch)


def _groups(model: nn.Module, views: Sequence[View]) -> Collection[list[int]]:
    """Which views make one batch: all, but where each image has a grid of patches of its own, those of one grid."""
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None or preprocessing.resize != "patches":
        return [list(range(len(views)))]
    groups: dict[Any, list[int]] = {}
    for at, view in enumerate(views):
        groups.setdefault(getattr(view.pixels, "shape", None), []).append(at)
    return groups.values()


def view_batch(views: Sequence[View], model: nn.Module) -> dict[str, Any]:
    """Returns views as a batch for a model: `index`, and with images `images` (b, c, h, w), padded, `image_sizes`."""
    batch: dict[str, Any] = {"index": torch.tensor([view.number for view in views])}
    pixels = [view.pixels for view in views if isinstance(view.pixels, Tensor)]
    if not pixels:
        return batch
    images, sizes = stack_images(pixels)
    return {**batch, "images": as_input(model, images), "image_sizes": sizes}
