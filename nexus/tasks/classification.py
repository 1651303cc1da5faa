"""Classification: one label per image, hard or soft.

Dims: b batch, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nexus.tasks.metrics import ClassificationMetrics
from nexus.tasks.protocol import ImageInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from nexus.data import Dataset


class Guess(NamedTuple):
    """A class and the probability that the model gives it."""

    label: str
    score: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says about one image.

    Attributes:
        path: The file, or the place in what was given: `"array[3]"`.
        probabilities: Per class, in the order of `class_names`; they sum to 1.
        class_names: Names of the classes.
        image: The image, where it was given in memory; a file is read again when it is drawn.
    """

    path: str
    probabilities: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    image: "Image | np.ndarray | None" = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.path}: {self.label} {self.score:.1%}"

    @cached_property
    def order(self) -> np.ndarray:
        """Class indices from the most to the least probable."""
        return np.argsort(-self.probabilities, kind="stable")

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.class_names[self.order[0]]

    @property
    def score(self) -> float:
        """The probability of `label`."""
        return float(self.probabilities[self.order[0]])

    @property
    def labels(self) -> list[str]:
        """All classes, the most probable first."""
        return [self.class_names[i] for i in self.order]

    @property
    def scores(self) -> list[float]:
        """Their probabilities, in the same order."""
        return self.probabilities[self.order].tolist()

    def top(self, count: int = 5) -> list[Guess]:
        """Returns the `count` most probable classes (all, if there are fewer) with their probabilities."""
        return [Guess(self.class_names[i], float(self.probabilities[i])) for i in self.order[:count]]

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """Returns plain values that JSON can hold: path, label, score, and the first `count` guesses."""
        top = [{"label": guess.label, "score": guess.score} for guess in self.top(count)]
        return {"path": self.path, "label": self.label, "score": self.score, "top": top}

    def to_rows(self, count: int = 5) -> list[dict[str, Any]]:
        """Returns a line of a table for each of the first `count` guesses."""
        return [
            {"path": self.path, "rank": rank, "label": guess.label, "score": guess.score}
            for rank, guess in enumerate(self.top(count), start=1)
        ]

    def draw(self) -> "Image":
        """Returns the image with the first guess written under it."""
        from nexus.visualization.drawing import caption

        return caption(self.load_image(), f"{self.label} {self.score:.0%}")

    def plot(self, count: int = 5) -> "Figure":
        """Returns a figure: the image, and bars for the first `count` guesses."""
        from nexus.visualization.pictures import plot_guesses

        return plot_guesses(self.load_image(), self.top(count), title=self.path)

    def load_image(self) -> "Image":
        """Returns the image, read from its file unless it was given in memory."""
        from nexus.data import load_image
        from nexus.visualization.pictures import to_picture

        return to_picture(load_image(self.path) if self.image is None else self.image)


@dataclass(frozen=True)
class ClassificationTask:
    """Cross-entropy, top-1 and top-5.

    Attributes:
        class_names: Names of the classes, in the order of the model's outputs. Without names, any number of outputs
            is taken, and they are called "0", "1", ...
        label_smoothing: Share of a label that is spread over all classes (Szegedy et al. 2016, Sec. 7), in [0, 1).
    """

    class_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0

    name = "classification"
    headline = "top1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1.")

    def check_data(self, dataset: "Dataset") -> None:
        """Raises ValueError if the data set is empty or has labels without a class."""
        if hasattr(dataset, "annotations"):
            raise ValueError(f"The data set {dataset.name!r} has objects, not a class per image; use a detector.")
        labels, count = np.asarray(dataset.labels), len(self.class_names or dataset.class_names)
        if len(labels) == 0:
            raise ValueError(f"The data set {dataset.name!r} is empty.")
        wrong = np.flatnonzero((labels < 0) | (labels >= count))
        if len(wrong):
            raise ValueError(
                f"The data set {dataset.name!r} has the label {labels[wrong[0]]} (image {wrong[0]}), and the model has"
                f" {count} classes, 0 to {count - 1}: {len(wrong)} of {len(labels)} labels have no class."
                f" Create the model with num_classes={labels.max() + 1}, or check the labels."
            )

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the model's outputs and its `cross_entropy`; labels are int64 (b,), or soft (b, k) from MixUp."""
        outputs = self.predict(model, batch)
        logits: Float[Tensor, "b k"] = outputs["logits"].float()
        loss = F.cross_entropy(logits, batch["labels"], label_smoothing=self.label_smoothing)
        return outputs, {"cross_entropy": loss}

    def predict(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the model's outputs, whose `logits` are (b, k).

        Raises:
            ValueError: The model gives no logits, or not one per class.
        """
        outputs = model(batch["images"])
        outputs = {"logits": outputs} if isinstance(outputs, Tensor) else outputs
        if "logits" not in outputs:
            raise ValueError(f"{type(model).__name__} gives {', '.join(outputs)}; a classifier gives 'logits' (b, k).")
        shape = tuple(outputs["logits"].shape)
        if len(shape) != 2 or (self.class_names and shape[1] != len(self.class_names)):
            raise ValueError(
                f"{type(model).__name__} gives logits of shape {shape}, and there are {len(self.class_names)} classes."
                f" Create the model with num_classes={len(self.class_names)}."
            )
        return outputs

    def metrics(self) -> ClassificationMetrics:
        """Returns fresh top-1, top-5 and loss."""
        return ClassificationMetrics()

    def results(self, outputs: Mapping[str, Any], infos: Sequence[ImageInfo]) -> list[Prediction]:
        """Returns one `Prediction` per image: the softmax of its logits.

        Raises:
            ValueError: The logits of an image are not finite; the message names it.
        """
        probabilities = outputs["logits"].detach().double().softmax(dim=1).float().cpu().numpy()
        for info, row in zip(infos, probabilities):
            if not np.isfinite(row).all():
                raise ValueError(
                    f"The model gives NaN or infinity for {info.path}."
                    " Its weights are broken, or its training diverged."
                )
        names = self.class_names or tuple(map(str, range(probabilities.shape[1])))
        return [Prediction(info.path, row, names, info.image) for info, row in zip(infos, probabilities, strict=True)]

    def draw(self, image: "Image", result: Prediction) -> "Image":
        """Returns the image with the first guess written under it."""
        from nexus.visualization.drawing import caption

        return caption(image, f"{result.label} {result.score:.0%}")
