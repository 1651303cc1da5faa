"""What an evaluation of a detector says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus.data.detection.scene import Scene
from nexus.tasks.detection.coco_figures import CocoFigures
from nexus.tasks.detection.errors import SCORE, Errors, find_errors, precision_recall
from nexus.tasks.report import Report
from nexus.visualization.detection_errors import Mark, draw_marks, plot_precision_recall
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import to_picture

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

    def sections(self, dataset: Any) -> list[Section]:
        """Returns the figures, the curves of the classes, and where the detector is wrong."""
        measured = [row for row in self.tables()["metrics"] if row["value"] is not None]
        return [
            Section(title="Held-out metrics", text="COCO's figures, from 0 to 1.", rows=measured),
            self._curves(),
            self._errors(dataset),
        ]

    def _curves(self) -> Section:
        """The curves of the classes, or in words why there is none."""
        title = "Precision and recall of each class"
        try:
            figure = self.plot_precision_recall()
        except ValueError as error:
            return Section(title=title, text=str(error), rows=self.per_class)
        said = "From the surest find to the least sure; a find is right where it covers half of an object of its class."
        return Section(title=title, text=said, pictures=[Picture.of(figure, "curves")], rows=self.per_class)

    def _errors(self, dataset: Any) -> Section:
        said = (
            f"At a score of {SCORE:g}: right boxes, right boxes of a wrong class (confused), boxes on nothing (false),"
            " and objects that no box covers (missed, dashed); thin white boxes are the true ones of what is found."
            " The images with the most errors, the worst first."
        )
        pictures = [Picture.of(picture, name) for name, picture in self.worst_pictures(dataset)]
        return Section(title="Missed, false, confused", text=said, pictures=pictures, rows=self.fates())

    def fates(self, *, min_score: float = SCORE) -> list[dict[str, Any]]:
        """Returns for each class how many finds are right, confused or false, and how many objects are missed.

        Args:
            min_score: Finds below are left out.
        """
        counts = [dict.fromkeys(Errors._fields, 0) for _ in self.class_names]
        for scene, result in zip(self.truth, self.results):
            errors, labels = find_errors(scene, result.found, min_score=min_score), result.found.labels.tolist()
            for kind in ("right", "confused"):
                for n, _ in getattr(errors, kind):
                    counts[labels[n]][kind] += 1
            for n in errors.false:
                counts[labels[n]]["false"] += 1
            for m in errors.missed:
                counts[scene.objects[m].label]["missed"] += 1
        return [{"class": name, **count} for name, count in zip(self.class_names, counts)]

    def worst_pictures(self, dataset: Any) -> list[tuple[str, "Image"]]:
        """Returns the images with the most errors, the worst first, with the errors drawn in."""
        return [
            (self.results[index].path, self.draw_errors(index, to_picture(dataset[index].image)))
            for index in self.worst()
        ]

    def draw_errors(self, index: int, image: "Image | None" = None, *, min_score: float = SCORE) -> "Image":
        """Returns an image with what is right, confused, false and missed in it; objects are drawn dashed where
        they are missed, and in thin white where they are found. Crowds and difficult objects are left out.

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
        found = [scene.objects[m].box for _, m in [*errors.right, *errors.confused]]
        return draw_marks(result.load_image() if image is None else image, marks, truths=found)

    def worst(self, count: int = 8, *, min_score: float = SCORE) -> list[int]:
        """Returns the numbers of the images with the most errors, those with the most first."""
        wrong = {}
        for index, (scene, result) in enumerate(zip(self.truth, self.results)):
            errors = find_errors(scene, result.found, min_score=min_score)
            wrong[index] = len(errors.confused) + len(errors.false) + len(errors.missed)
        return sorted((index for index in wrong if wrong[index]), key=lambda index: -wrong[index])[:count]

    def plot_precision_recall(self) -> "Figure":
        """Returns the curve of each class, at an overlap of one half."""
        curves = precision_recall(self.truth, [one.found for one in self.results], range(len(self.class_names)))
        return plot_precision_recall({name: curve[:2] for name, curve in zip(self.class_names, curves)})
