"""What is said about one frame of a video: the mask of each object that is followed.

Dims: h w pixels.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from nexus.core.files import write_whole
from nexus.data.clips.id_images import write_ids
from nexus.data.detection.rle import RLE

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IDS = 254
"""Numbers of objects that a picture of numbers can hold; 255 means that nobody judges."""


class TrackedObject(NamedTuple):
    """One object in a frame.

    Attributes:
        object_id: Its number, as it was given.
        mask: Of its visible part, in pixels of the frame as given; empty where it is hidden or out of sight.
        score: The IoU with the object that the model expects of the mask, 0 to 1.
        presence: How sure the model is that the object is in sight, 0 to 1.
    """

    object_id: int
    mask: RLE
    score: float
    presence: float


def write_coco_results(predictions: "Sequence[TrackedFrame]", path: Path) -> None:
    """Writes masks as COCO's results with the `track_id` of each; frames are images from 1, and all of category 1."""
    rows = []
    for image, frame in enumerate(predictions, start=1):
        for one in frame.objects:
            x1, y1, x2, y2 = one.mask.box
            row: dict[str, Any] = {"image_id": image, "category_id": 1, "track_id": one.object_id}
            row |= {"segmentation": one.mask.to_json(), "score": one.score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            rows += [row] if one.mask.area else []
    write_whole(path, lambda part: part.write_text(json.dumps(rows) + "\n", encoding="utf-8"))


def write_id_images(predictions: "Sequence[TrackedFrame]", path: Path) -> None:
    """Writes a PNG for each frame into a folder whose pixels are the numbers of the objects, as DAVIS takes them."""
    names = [frame.file_name for frame in predictions]
    twice = (
        next((name for place, name in enumerate(names) if name in names[:place]), None) if len(names) < 5000 else None
    )
    if twice is not None or len(set(names)) < len(names):
        raise ValueError(f"Two frames would be written to {path / (twice or names[0])}; write each video alone.")
    for name, frame in zip(names, predictions):
        write_ids(path / name, frame.ids())


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """The objects of one frame, by their numbers.

    Attributes:
        path: The frame: "clip.mp4#12", the file of a picture, or the place in what was given.
        number: Of the frame, from 0.
        height: Of the frame as given, in pixels.
        width: Likewise.
        objects: Those that were pointed at in this frame or one before.
        image: The frame, where it is in memory; else the file is read again when it is drawn.
    """

    path: str
    number: int
    height: int
    width: int
    objects: tuple[TrackedObject, ...] = field(repr=False)
    image: "Image | np.ndarray | None" = field(default=None, repr=False)

    formats: ClassVar[Mapping[str, Callable[[Sequence[Any], Path], None]]] = {
        ".coco.json": write_coco_results,
        "": write_id_images,
    }

    def __len__(self) -> int:
        return len(self.objects)

    def __str__(self) -> str:
        shown = ", ".join(f"object {one.object_id} {one.mask.area} pixels ({one.score:.0%})" for one in self.objects)
        return f"{self.path}: {shown or 'no object yet'}"

    @property
    def file_name(self) -> str:
        """What a picture of this frame is called: its number in a video, or the name of its own picture."""
        stem = Path(self.path).stem
        return f"{self.number:05}.png" if re.search(r"#\d+$|\[\d+\]$", self.path) else f"{stem}.png"

    def above(self, score: float) -> "TrackedFrame":
        """Only the objects of at least this score."""
        return replace(self, objects=tuple(one for one in self.objects if one.score >= score))

    def masks(self) -> np.ndarray:
        """The masks (n, h, w), pixel by pixel."""
        if not self.objects:
            return np.zeros((0, self.height, self.width), dtype=bool)
        return np.stack([one.mask.decode() for one in self.objects])

    def ids(self) -> np.ndarray:
        """The number of the object of each pixel (h, w), 0 without one; where objects overlap, the lowest number.

        Raises:
            ValueError: A number is above 254.
        """
        result = np.zeros((self.height, self.width), dtype=np.uint8)
        for one in sorted(self.objects, key=lambda one: -one.object_id):
            if one.object_id > MOST_IDS:
                raise ValueError(f"Object {one.object_id} has no number in a picture; they go up to {MOST_IDS}.")
            result[one.mask.decode()] = one.object_id
        return result

    def to_json(self, count: int | None = None) -> dict[str, Any]:
        """Returns plain values that JSON can hold; masks are COCO's runs."""
        rows = [
            {
                "object": one.object_id,
                "score": one.score,
                "presence": one.presence,
                "area": one.mask.area,
                "box": list(one.mask.box),
                "mask": one.mask.to_json(),
            }
            for one in self.objects[:count]
        ]
        return {
            "path": self.path,
            "frame": self.number,
            "height": self.height,
            "width": self.width,
            "objects": rows,
        }

    def to_rows(self, count: int | None = None) -> list[dict[str, Any]]:
        """Returns a line of a table for each object; coordinates in pixels."""
        sides = ("x1", "y1", "x2", "y2")
        return [
            {
                "path": self.path,
                "frame": self.number,
                "object": one.object_id,
                "score": one.score,
                "presence": one.presence,
                "area": one.mask.area,
                **dict(zip(sides, one.mask.box)),
            }
            for one in self.objects[:count]
        ]

    def draw(self, min_score: float | None = None) -> "Image":
        """Returns the frame with the masks drawn on it."""
        from nexus.data import load_image
        from nexus.visualization.pictures import to_picture

        shown = self if min_score is None else self.above(min_score)
        return shown.draw_on(to_picture(load_image(self.path) if self.image is None else self.image))

    def draw_on(self, image: "Image") -> "Image":
        """Likewise on a picture that is at hand, of the frame's size."""
        from nexus.visualization.objects import draw_objects

        seen = [one for one in self.objects if one.mask.area]
        boxes = np.array([one.mask.box for one in seen]).reshape(-1, 4)
        numbers = [one.object_id for one in seen]
        masks = [one.mask.decode() for one in seen]
        return draw_objects(image, boxes, [str(number) for number in numbers], numbers, masks=masks, frames=False)
