"""What an evaluation of a classifier says.

Dims: k classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from nexus.tasks.classification.scores import calibration_error, class_table, confusion_matrix
from nexus.tasks.report import Report
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import to_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


class Answers(NamedTuple):
    """What the model said about n images, one array (n,) per fact; classes are indices."""

    index: np.ndarray
    label: np.ndarray
    guess: np.ndarray
    score: np.ndarray
    label_score: np.ndarray


class Answer(NamedTuple):
    """What the model said about one image.

    Attributes:
        path: The image's file, or its place in the data set.
        label: The true class.
        guess: The most probable class.
        score: The probability of `guess`.
        label_score: The probability of `label`; the loss is its negative logarithm.
        right: Whether the guess is the label.
        index: The image's place in the data set.
    """

    path: str
    label: str
    guess: str
    score: float
    label_score: float
    right: bool
    index: int


class ClassScores(TypedDict):
    """One line of the per-class table; `support` is the number of images of the class."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluation(Report):
    """A classifier's figures on a data set.

    Attributes:
        metrics: `top1`, `top5` (of more than five classes), `loss` (mean cross-entropy, nats), `macro_f1` (mean
            over the classes that occur as label or guess), `calibration_error` (15 bins).
        paths: Of the images, in the order of the data set.
        answers: The same images' labels and guesses.
    """

    paths: list[str]
    answers: Answers

    @classmethod
    def from_answers(
        cls, answers: Answers, *, metrics: dict[str, float], class_names: tuple[str, ...], **facts: Any
    ) -> "Evaluation":
        """Returns the evaluation whose `metrics` are those given and the ones that follow from the answers."""
        table = class_table(answers.label, answers.guess, len(class_names))
        more = {
            "macro_f1": float(table.f1[(table.support + table.guessed) > 0].mean()),
            "calibration_error": calibration_error(answers.score, answers.label == answers.guess),
        }
        return cls(
            answers=answers,
            metrics={**metrics, **more},
            class_names=class_names,
            num_images=len(answers.index),
            **facts,
        )

    @cached_property
    def predictions(self) -> list[Answer]:
        """What the model said about each image, in the order of the data set."""
        names, answers = self.class_names, self.answers
        rows = zip(self.paths, *(column.tolist() for column in answers))
        return [
            Answer(path, names[label], names[guess], score, label_score, label == guess, index)
            for path, index, label, guess, score, label_score in rows
        ]

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts (k, k): rows are the true classes, columns the guesses."""
        return confusion_matrix(self.answers.label, self.answers.guess, len(self.class_names))

    @cached_property
    def per_class(self) -> list[ClassScores]:
        """Precision, recall, F1 and support of each class, in the order of `class_names`."""
        table = class_table(self.answers.label, self.answers.guess, len(self.class_names))
        columns = (table.precision.tolist(), table.recall.tolist(), table.f1.tolist(), table.support.tolist())
        return [
            ClassScores(name=name, precision=precision, recall=recall, f1=f1, support=support)
            for name, precision, recall, f1, support in zip(self.class_names, *columns)
        ]

    def most_wrong(self, count: int = 16) -> list[Answer]:
        """Returns the wrong guesses of highest loss, the worst first."""
        wrong = [answer for answer in self.predictions if not answer.right]
        return sorted(wrong, key=lambda answer: answer.label_score)[:count]

    def sections(self, dataset: Any) -> list[Section]:
        """Returns the figures, which classes are confused, and the worst of the wrong guesses."""
        return [super().sections(dataset)[0], self._confused(), self._wrong(dataset)]

    def _confused(self) -> Section:
        names = {"name": "class", "f1": "F1", "support": "images"}
        return Section(
            title="Which classes are confused",
            text="Rows are the true classes, columns the guesses.",
            pictures=[Picture.of(self.plot_confusion(), "confusion matrix")],
            rows=[{names.get(key, key): value for key, value in row.items()} for row in self.per_class],
        )

    def _wrong(self, dataset: Any) -> Section:
        from nexus.visualization import contact_sheet

        wrong = self.most_wrong()
        if not wrong:
            return Section(title="Wrong guesses", text="There is none.")
        sheet = contact_sheet(
            [to_picture(dataset[answer.index].image) for answer in wrong],
            [f"is {answer.label}, guess {answer.guess}\n{answer.score:.0%} sure" for answer in wrong],
        )
        total = sum(not answer.right for answer in self.predictions)
        return Section(
            title="Wrong guesses",
            text=f"{total} of {len(self.predictions)} held-out images, the worst first.",
            pictures=[Picture.of(sheet, "wrong guesses with the true class and the guess")],
            rows=[{"image": a.path, "is": a.label, "guess": a.guess, "score": a.score} for a in wrong],
        )

    def worst_pictures(self, dataset: Any) -> list[tuple[str, "Image"]]:
        """Returns the wrong guesses, the surest first, with the true class and the guess below each image."""
        from nexus.visualization import caption

        return [
            (
                one.path,
                caption(to_picture(dataset[one.index].image), f"is {one.label}\nguess {one.guess} {one.score:.0%}"),
            )
            for one in self.most_wrong()
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values that JSON can hold."""
        predictions = [answer._asdict() for answer in self.predictions]
        return {**super().to_json(), "confusion": self.confusion.tolist(), "predictions": predictions}

    def plot_confusion(self) -> "Figure":
        """Returns the confusion matrix as a figure."""
        from nexus.visualization import plot_confusion_matrix

        return plot_confusion_matrix(self.confusion, self.class_names)
