"""Annotated images: what every file format is read into and written from.

Boxes are `x1 y1 x2 y2` in continuous pixels: the left edge of an image is 0, its right edge its width.

Dims: h w pixels, j keypoints, v vertices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from nexus.core.text import one_line
from nexus.data.dataset import DataError
from nexus.data.detection.rle import RLE, from_polygons, outline
from nexus.data.images import Image, image_size, load_image

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Polygons:
    """A mask drawn by hand: the union of the insides of outlines, x and y in pixels of the image."""

    rings: tuple[Float[np.ndarray, "v 2"], ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Polygons) or len(self.rings) != len(other.rings):
            return False
        return all(np.array_equal(*pair) for pair in zip(self.rings, other.rings))

    def __hash__(self) -> int:
        return hash(tuple(ring.tobytes() for ring in self.rings))


Mask = RLE | Polygons


@dataclass(frozen=True, eq=False)
class Object:
    """One annotated object.

    Attributes:
        label: Position of its class in `class_names`.
        box: Corners in pixels.
        mask: What it covers; None where nobody drew it.
        keypoints: (j, 3): x, y and 0 not labelled, 1 labelled and hidden, 2 visible; None where there are none.
        crowd: Whether it is a group in which no one was told apart. Evaluation ignores it, training leaves it out.
        area: In square pixels, as the file says it; None takes that of the mask, or of the box.
        difficult: Pascal VOC's mark of an object that does not count.
    """

    label: int
    box: Box
    mask: Mask | None = None
    keypoints: Float[np.ndarray, "j 3"] | None = None
    crowd: bool = False
    area: float | None = None
    difficult: bool = False


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its objects.

    Attributes:
        path: The image's file, or a place such as "digit-scenes/val[3]".
        height: In pixels.
        width: In pixels.
        objects: In the order of the file.
        id: Number of the image where its file has one (COCO).
    """

    path: str
    height: int
    width: int
    objects: tuple[Object, ...] = ()
    id: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def rle(self, one: Object) -> RLE | None:
        """The mask of an object as runs."""
        if isinstance(one.mask, Polygons):
            return from_polygons(one.mask.rings, self.height, self.width)
        return one.mask

    def area(self, one: Object) -> float:
        """The area of an object: as given, or of its mask, or of its box."""
        if one.area is not None:
            return one.area
        rle = self.rle(one)
        return float(rle.area) if rle is not None else (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])


@dataclass(frozen=True, eq=False)
class Annotations:
    """Annotated images of one set.

    Attributes:
        scenes: The images.
        class_names: Of the objects; a label is a position in it.
        class_ids: Number of each class in the COCO file; 1, 2, ... unless a file says otherwise.
        keypoint_names: In the order of `Object.keypoints`; empty without keypoints.
        skeleton: Pairs of keypoints that a picture joins, counted from 0.
        mirror: For each keypoint the one that it becomes in a mirror, where a file says so; see `mirror_of`.
    """

    scenes: tuple[Scene, ...]
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    mirror: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_ids:
            object.__setattr__(self, "class_ids", tuple(range(1, len(self.class_names) + 1)))

    def of(self, scenes: Sequence[Scene]) -> "Annotations":
        """The same description of other images."""
        return replace(self, scenes=tuple(scenes))


def ring_of(mask: Mask) -> Float[np.ndarray, "v 2"]:
    """One outline of a mask: the drawn one, or one along the pixels' edges that gives the mask back exactly."""
    if isinstance(mask, Polygons):
        assert len(mask.rings) == 1, "the union of several outlines is made of runs first"
        return mask.rings[0]
    return outline(mask)


class Fault(NamedTuple):
    """Something wrong in an annotation file.

    Attributes:
        file: Which one.
        place: The annotation, line or field.
        problem: What is wrong, and what would be right.
    """

    file: str
    place: str
    problem: str

    def __str__(self) -> str:
        return one_line(": ".join(part for part in self if part))


Report = Callable[[Fault], None]
"""Told about each fault; a reader that is not stopped by it leaves out what the fault spoils."""


def refuse(fault: Fault) -> None:
    """The report of readers that take no faults: raises DataError."""
    raise DataError(str(fault))


def box_problem(box: Box, height: int, width: int) -> str | None:
    """What is wrong with a box, or None. Half a pixel beyond the border is forgiven."""
    if not np.isfinite(box).all():
        return f"the box {_short(box)} is not made of finite numbers."
    if box[2] <= box[0] or box[3] <= box[1]:
        return f"the box {_short(box)} has no area; its width and height must be above 0."
    if box[0] < -0.5 or box[1] < -0.5 or box[2] > width + 0.5 or box[3] > height + 0.5:
        return f"the box {_short(box)} leaves the image of {width} x {height} pixels (width x height)."
    return None


def _short(box: Box) -> str:
    return f"({', '.join(f'{side:g}' for side in box)})"


class DetectionSample(NamedTuple):
    """An image with what is annotated in it.

    Attributes:
        image: See `nexus.data.images` for the kinds.
        scene: Its objects.
        path: What messages call it.
    """

    image: Image
    scene: Scene
    path: str


class DetectionDataset(Protocol):
    """A sequence of annotated images.

    Attributes:
        name: What tables call the data set.
        annotations: Everything but the pixels.
        class_names: Of its objects.
        in_channels: Of its images.
        labels: int64, of all objects, without decoding an image.
    """

    name: str
    annotations: Annotations
    class_names: tuple[str, ...]
    in_channels: int
    labels: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> DetectionSample: ...


class AnnotatedFiles:
    """A data set of image files with annotations that were read before."""

    def __init__(self, name: str, annotations: Annotations, in_channels: int = 3) -> None:
        if not annotations.scenes:
            raise DataError(f"{name} has no images.")
        self.name, self.annotations, self.in_channels = name, annotations, in_channels
        self.class_names = annotations.class_names
        self.labels = all_labels(annotations.scenes)

    def __len__(self) -> int:
        return len(self.annotations.scenes)

    def __getitem__(self, index: int) -> DetectionSample:
        """Returns the sample with its image decoded.

        Raises:
            DataError: The image has another size than the annotations say.
        """
        scene = self.annotations.scenes[index]
        image = load_image(scene.path)
        if image_size(image) != scene.size:
            height, width = image_size(image)
            raise DataError(
                f"{scene.path} has {width} x {height} pixels and its annotations say {scene.width} x {scene.height}"
                " (width x height)."
            )
        return DetectionSample(image, scene, scene.path)

    def path(self, index: int) -> str:
        """Returns the path of a sample without reading it."""
        return self.annotations.scenes[index].path


def all_labels(scenes: Sequence[Scene]) -> np.ndarray:
    """The labels of all objects, int64."""
    return np.array([one.label for scene in scenes for one in scene.objects], dtype=np.int64)
