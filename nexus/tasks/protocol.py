"""What the trainer, the evaluator, the predictor and the command line ask of a task."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL.Image import Image

    from nexus.data import Dataset

Batch = Mapping[str, Any]
Outputs = Mapping[str, Any]


class ImageInfo(NamedTuple):
    """Where an image came from.

    Attributes:
        path: The file, or a place such as `"images[3]"`.
        height: In pixels, as given, before any preprocessing.
        width: Likewise.
        image: The image itself, where it was given in memory.
    """

    path: str
    height: int
    width: int
    image: "Image | np.ndarray | None" = None


class Metrics(Protocol):
    """Figures over a data set, gathered batch by batch on every process.

    `update` sees what this process saw, `synchronize` merges the processes, `compute` gives the figures.
    """

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Adds one batch. `outputs` come from `Task.predict` or `Task.losses`."""
        ...

    def synchronize(self) -> None:
        """Merges what all processes saw. A collective call, once, after the last `update`; alone it does nothing."""
        ...

    def compute(self) -> dict[str, float]:
        """Returns the figures by name. Before any `update` there is nothing to say, which raises ValueError."""
        ...


class Result(Protocol):
    """What a model says about one image."""

    @property
    def path(self) -> str: ...

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """Returns plain values that JSON can hold, with at most `count` guesses per image or object."""
        ...

    def to_rows(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns the lines of a table (CSV): one per guess for a classifier, one per object for a detector."""
        ...


class Task(Protocol):
    """A kind of model: how it is trained, measured and shown.

    Attributes:
        name: "classification", "detection", ... as on the model cards.
        headline: The metric that ranks checkpoints; higher is better.
        class_names: Names of the classes, in the order of the model's outputs.
    """

    @property
    def name(self) -> str: ...
    @property
    def headline(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError where a data set cannot be used with these classes, before any step is taken."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Outputs, dict[str, Tensor]]:
        """Runs the model on a batch with its targets. Returns its outputs and scalars; the trainer sums them.

        A classifier's losses are made here from its logits. A detector makes its own: the task hands it the
        targets (boxes per image, lists of different lengths) and passes on `outputs["losses"]`.
        """
        ...

    def predict(self, model: nn.Module, batch: Batch) -> Outputs:
        """Runs the model without targets. Returns outputs for `Metrics.update` and `results`."""
        ...

    def metrics(self) -> Metrics:
        """Returns fresh metrics."""
        ...

    def results(self, outputs: Outputs, infos: Sequence[ImageInfo]) -> Sequence[Any]:
        """Returns what the model says about each image of a batch, in units of the image as given: a `Result` each."""
        ...

    def draw(self, image: "Image", result: Any) -> "Image":
        """Returns a copy of the image with the result drawn on it."""
        ...
