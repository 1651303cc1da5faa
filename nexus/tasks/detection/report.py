"""What an evaluation of a detector says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus.data.detection.scene import Scene
from nexus.tasks.detection.coco_figures import CocoFigures
from nexus.tasks.detection.errors import SCORE, find_errors, precision_recall
from nexus.tasks.report import Report
from nexus.visualization.detection_errors import Mark, draw_marks, plot_precision_recall

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

PREFIXES = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}
"""What the figures of each kind are called: `AP` of boxes, `mask_AP`, `keypoint_AP`."""


def named_figures(figures: Sequence[CocoFigures]) -> dict[str, float | None]:
    """Returns all figures by name; None means that nothing was there to measure."""
    return {PREFIXES[one.kind] + name: value for one in figures for name, value in one.figures.items()}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DetectionEvaluation(Report):
    """A detector's figures on a data set.

    Attributes:
        figures: COCO's figures of boxes, and of masks and keypoints where the model gives them.
        truth: What is annotated in each image, in the order of `results`.
    """

    figures: tuple[CocoFigures, ...]
    truth: Sequence[Scene] = field(default=(), repr=False)

    @property
    def per_class(self) -> Sequence[Mapping[str, Any]]:
        """`AP` of each class, of each kind."""
        return [
            {"name": name, **{f"{PREFIXES[one.kind]}AP": one.per_class[label] for one in self.figures}}
            for label, name in enumerate(self.class_names)
        ]

    def draw_errors(self, index: int, image: "Image | None" = None, *, min_score: float = SCORE) -> "Image":
        """Returns an image with what is right, confused, false and missed in it; objects that count are drawn dashed
        where they are missed, and beside the find where it takes them for something else.

        Args:
            index: Number of the image in `results`.
            image: Its picture; None reads it where the data set says it is.
            min_score: Finds below are left out.
        """
        result, scene = self.results[index], self.truth[index]
        errors = find_errors(scene, result.found, min_score=min_score)
        finds = result.top()
        marks: list[Mark] = [("right", finds[n].box, finds[n].label) for n, _ in errors.right]
        for n, m in errors.confused:
            true = result.class_names[scene.objects[m].label]
            marks.append(("confused", finds[n].box, f"{finds[n].label} {finds[n].score:.0%}, is {true}"))
        marks += [("false", finds[n].box, f"{finds[n].label} {finds[n].score:.0%}") for n in errors.false]
        missed = [scene.objects[m] for m in errors.missed]
        marks += [("missed", one.box, result.class_names[one.label]) for one in missed]
        return draw_marks(result.load_image() if image is None else image, marks)

    def worst(self, count: int = 8, *, min_score: float = SCORE) -> list[int]:
        """Returns the numbers of the images with the most errors, those with the most first."""
        wrong = {}
        for index, (scene, result) in enumerate(zip(self.truth, self.results)):
            errors = find_errors(scene, result.found, min_score=min_score)
            wrong[index] = len(errors.confused) + len(errors.false) + len(errors.missed)
        return sorted((index for index in wrong if wrong[index]), key=lambda index: -wrong[index])[:count]

    def plot_precision_recall(self) -> "Figure":
        """Returns the curve of each class, at an overlap of one half."""
        found = [one.found for one in self.results]
        curves = {}
        for label, name in enumerate(self.class_names):
            recall, precision, _ = precision_recall(self.truth, found, label)
            curves[name] = (recall, precision)
        return plot_precision_recall(curves)
