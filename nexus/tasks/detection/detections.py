"""What a detector says about one image: boxes with classes and scores, and masks or keypoints.

Dims: h w pixels, n objects, j keypoints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from nexus.data.detection.numbering import Numbers
from nexus.tasks.detection.coco_figures import Found
from nexus.tasks.detection.formats import write_coco_results, write_yolo

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


SHOWN = 5
"""Objects that the representation names."""


class Detection(NamedTuple):
    """One found object.

    Attributes:
        label: Its class.
        score: How sure the model is, 0 to 1.
        box: x1, y1, x2, y2 in pixels of the image as given.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image, best first.

    Attributes:
        path: The image's file, or the place in what was given: `"array[3]"`.
        height: Of the image as given, in pixels.
        width: Likewise.
        found: Boxes, scores, labels, masks and keypoints, in pixels of that image.
        class_names: Names of the classes.
        image: The image, where it was given in memory; a file is read again when it is drawn.
        image_id: Its number in a data set; see `numbered`.
        class_ids: Numbers of the classes there; None for one that the data set does not have.
        caption: What the model was asked, where the classes are phrases of it; empty otherwise.
        class_places: Then where the words of each class stand in it, as first character and the one after the last.
    """

    path: str
    height: int
    width: int
    found: Found = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    image: "Image | np.ndarray | None" = field(default=None, repr=False)
    image_id: int | None = field(default=None, repr=False)
    class_ids: tuple[int | None, ...] = field(default=(), repr=False)
    caption: str = field(default="", repr=False)
    class_places: tuple[tuple[tuple[int, int], ...], ...] = field(default=(), repr=False)

    formats: ClassVar[Mapping[str, Callable[[Sequence[Any], Path], None]]] = {
        ".coco.json": write_coco_results,
        "": write_yolo,
    }

    def __len__(self) -> int:
        return len(self.found.scores)

    def __repr__(self) -> str:
        shown = ", ".join(f"{one.label} {one.score:.1%}" for one in self.top(SHOWN))
        more = ", ..." if len(self) > SHOWN else ""
        return f"Detections({self.path}, {self.height} x {self.width}, {len(self)} objects: {shown or 'none'}{more})"

    def __str__(self) -> str:
        shown = ", ".join(f"{one.label} {one.score:.1%}" for one in self.top())
        return f"{self.path}: {shown or 'nothing found'}"

    def top(self, count: int | None = None) -> list[Detection]:
        """Returns the `count` best objects; None returns all."""
        rows = zip(self.found.labels.tolist(), self.found.scores.tolist(), self.found.boxes.tolist())
        return [Detection(self.class_names[k], score, tuple(box)) for k, score, box in list(rows)[:count]]

    def above(self, score: float) -> "Detections":
        """Only the objects of at least this score."""
        kept = np.flatnonzero(self.found.scores >= score)
        return replace(self, found=chosen(self.found, kept))

    def numbered(self, numbers: Numbers) -> "Detections":
        """The same with the numbers that a data set gives to the image and the classes.

        Raises:
            ValueError: The data set has not this image, or none of the classes.
        """
        return replace(self, image_id=numbers.image(self.path), class_ids=numbers.classes(self.class_names))

    def to_json(self, count: int | None = None) -> dict[str, Any]:
        """Returns plain values that JSON can hold; masks are COCO's runs."""
        rows = []
        for place, one in enumerate(self.top(count)):
            row: dict[str, Any] = {"label": one.label, "score": one.score, "box": list(one.box)}
            if self.found.masks is not None:
                row["mask"] = self.found.masks[place].to_json()
            if self.found.keypoints is not None:
                row["keypoints"] = self.found.keypoints[place].tolist()
            if self.class_places:
                row["places"] = [list(place) for place in self.class_places[self.found.labels[place]]]
            rows.append(row)
        caption = {"caption": self.caption} if self.caption else {}
        return {"path": self.path, "height": self.height, "width": self.width, **caption, "objects": rows}

    def to_rows(self, count: int | None = None) -> list[dict[str, Any]]:
        """Returns a line of a table for each object; coordinates in pixels."""
        sides = ("x1", "y1", "x2", "y2")
        return [
            {"path": self.path, "rank": rank, "label": one.label, "score": one.score, **dict(zip(sides, one.box))}
            for rank, one in enumerate(self.top(count), start=1)
        ]

    def to_coco(self, image_id: int, class_ids: Sequence[int | None] = ()) -> list[dict[str, Any]]:
        """Returns rows of a COCO results file; classes count from 1 unless their ids are given, or `numbered`.

        Objects of a class that the data set does not have are left out: nothing could be compared with them.
        """
        rows, class_ids = [], class_ids or self.class_ids
        for place, (label, score) in enumerate(zip(self.found.labels.tolist(), self.found.scores.tolist())):
            x1, y1, x2, y2 = self.found.boxes[place].tolist()
            number = class_ids[label] if class_ids else label + 1
            if number is None:
                continue
            row = {"image_id": image_id, "category_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            if self.found.masks is not None:
                row["segmentation"] = self.found.masks[place].to_json()
            if self.found.keypoints is not None:
                row["keypoints"] = self.found.keypoints[place].reshape(-1).tolist()
            rows.append(row)
        return rows

    def to_yolo(self) -> list[str]:
        """Returns lines of a YOLO results file: class, centre and size as shares of the image, score."""
        sides = np.array([self.width, self.height] * 2, dtype=np.float64)
        lines = []
        for label, score, box in zip(self.found.labels.tolist(), self.found.scores.tolist(), self.found.boxes / sides):
            centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            lines.append(" ".join([str(label), *(f"{value:.8g}" for value in (*centre, *size)), f"{score:.6g}"]))
        return lines

    def draw(self, min_score: float = 0.3) -> "Image":
        """Returns the image with the objects of at least `min_score` drawn on it."""
        return self.draw_on(self.load_image(), min_score)

    def draw_on(self, image: "Image", min_score: float = 0.3) -> "Image":
        """Likewise on a picture that is at hand, of the image's size."""
        from nexus.visualization.objects import draw_objects

        shown = self.above(min_score)
        masks = None if shown.found.masks is None else [mask.decode() for mask in shown.found.masks]
        captions = [f"{one.label} {one.score:.0%}" for one in shown.top()]
        labels = shown.found.labels.tolist()
        return draw_objects(image, shown.found.boxes, captions, labels, masks=masks, keypoints=shown.found.keypoints)

    def plot(self, min_score: float = 0.3) -> "Figure":
        """Returns a figure of the image with the objects of at least `min_score`."""
        from nexus.visualization.figures import image_axes, new_figure

        drawn = self.draw(min_score)
        figure = new_figure(8, max(2.0, 8 * drawn.height / drawn.width))
        image_axes(figure.subplots()).imshow(drawn)
        return figure

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


def chosen(found: Found, places: np.ndarray) -> Found:
    """Some of the objects, in the order of `places`."""
    return Found(
        found.boxes[places],
        found.scores[places],
        found.labels[places],
        None if found.masks is None else tuple(found.masks[place] for place in places.tolist()),
        None if found.keypoints is None else found.keypoints[places],
    )
