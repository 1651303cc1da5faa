"""What a promptable segmenter says about one image: masks, each with how good it is said to be.

Dims: h w pixels.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from nexus.core.files import write_whole
from nexus.data.detection.rle import RLE

if TYPE_CHECKING:
    from PIL.Image import Image


class Segment(NamedTuple):
    """One mask.

    Attributes:
        mask: In the image as given.
        score: The IoU with the object that the model expects of it, mostly 0 to 1.
        prompt: Number of the prompt that it answers.
        point: (x, y) of the prompt where the whole image was asked about, in pixels; else None.
        stability: There, the IoU of the mask with logits above 1 and above -1; else None.
    """

    mask: RLE
    score: float
    prompt: int
    point: tuple[float, float] | None = None
    stability: float | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 around the mask, in pixels."""
        return self.mask.box


def write_coco_results(predictions: "Sequence[Segments]", path: Path) -> None:
    """Writes masks as COCO's results of segmentation, all of category 1; images are numbered from 1."""
    rows = [
        {
            "image_id": number,
            "category_id": 1,
            "segmentation": one.mask.to_json(),
            "score": one.score,
            "bbox": _xywh(one),
        }
        for number, image in enumerate(predictions, start=1)
        for one in image.segments
    ]
    write_whole(path, lambda part: part.write_text(json.dumps(rows) + "\n", encoding="utf-8"))


def _xywh(segment: Segment) -> list[float]:
    x1, y1, x2, y2 = segment.box
    return [x1, y1, x2 - x1, y2 - y1]


@dataclass(frozen=True, eq=False)
class Segments:
    """The masks of one image, in the order of the prompts; of the whole image, the surest first.

    Attributes:
        path: The image's file, or the place in what was given: `"array[3]"`.
        height: Of the image as given, in pixels.
        width: Likewise.
        segments: The masks.
        image: The image, where it was given in memory; a file is read again when it is drawn.
    """

    path: str
    height: int
    width: int
    segments: tuple[Segment, ...] = field(repr=False)
    image: "Image | np.ndarray | None" = field(default=None, repr=False)

    formats: ClassVar[Mapping[str, Callable[[Sequence[Any], Path], None]]] = {".coco.json": write_coco_results}

    def __len__(self) -> int:
        return len(self.segments)

    def __str__(self) -> str:
        shown = ", ".join(f"{one.mask.area} pixels ({one.score:.1%})" for one in self.segments[:5])
        return f"{self.path}: {shown or 'no mask'}"

    def above(self, score: float) -> "Segments":
        """Only the masks of at least this score."""
        return replace(self, segments=tuple(one for one in self.segments if one.score >= score))

    def masks(self) -> np.ndarray:
        """The masks (n, h, w), pixel by pixel."""
        if not self.segments:
            return np.zeros((0, self.height, self.width), dtype=bool)
        return np.stack([one.mask.decode() for one in self.segments])

    def to_json(self, count: int | None = None) -> dict[str, Any]:
        """Returns plain values that JSON can hold; masks are COCO's runs."""
        rows = []
        for one in self.segments[:count]:
            row: dict[str, Any] = {"prompt": one.prompt, "score": one.score, "area": one.mask.area}
            row |= {"box": list(one.box), "mask": one.mask.to_json()}
            row |= {} if one.point is None else {"point": list(one.point), "stability": one.stability}
            rows.append(row)
        return {"path": self.path, "height": self.height, "width": self.width, "segments": rows}

    def to_rows(self, count: int | None = None) -> list[dict[str, Any]]:
        """Returns a line of a table for each mask; coordinates in pixels."""
        sides = ("x1", "y1", "x2", "y2")
        return [
            {
                "path": self.path,
                "prompt": one.prompt,
                "score": one.score,
                "area": one.mask.area,
                **dict(zip(sides, one.box)),
            }
            for one in self.segments[:count]
        ]

    def draw(self) -> "Image":
        """Returns the image with the masks drawn on it."""
        return self.draw_on(self.load_image())

    def draw_on(self, image: "Image") -> "Image":
        """Likewise on a picture that is at hand, of the image's size."""
        from nexus.visualization.objects import draw_objects

        largest_first = sorted(self.segments, key=lambda one: -one.mask.area)
        boxes = np.array([one.box for one in largest_first]).reshape(-1, 4)
        crowded = len(largest_first) > CAPTIONED
        captions = ["" if crowded else f"{one.score:.0%}" for one in largest_first]
        numbers = list(range(len(largest_first)))
        masks = [one.mask.decode() for one in largest_first]
        return draw_objects(image, boxes, captions, numbers, masks=masks, frames=False)

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


CAPTIONED = 12
"""Of more masks the captions would hide the picture."""
