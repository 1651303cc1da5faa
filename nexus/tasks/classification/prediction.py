"""What a classifier says about one image."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from nexus.core.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def write_table(predictions: Sequence["Prediction"], path: Path) -> None:
    """Writes a CSV with a row per image: its path, the first guess and its score, then the score of each class.

    Raises:
        ValueError: The predictions are of several sets of classes.
    """
    names = predictions[0].class_names
    if any(one.class_names != names for one in predictions):
        raise ValueError(f"{path} has a column per class, and the predictions have several sets of classes.")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "score", *names])
    writer.writerows([one.path, one.label, one.score, *one.probabilities.tolist()] for one in predictions)
    write_whole(path, lambda part: part.write_text(buffer.getvalue(), encoding="utf-8", errors="backslashreplace"))


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

    formats: ClassVar[dict[str, Any]] = {".csv": write_table}

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

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the picture; nothing where its file is gone."""
        from nexus.visualization.figures import to_png

        try:
            return to_png(self.draw())
        except (OSError, ValueError):
            return None

    def load_image(self) -> "Image":
        """Returns the image, read from its file unless it was given in memory."""
        from nexus.data import load_image
        from nexus.visualization.pictures import to_picture

        return to_picture(load_image(self.path) if self.image is None else self.image)
