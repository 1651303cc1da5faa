"""Steps that change an image and carry its boxes, masks and keypoints along.

A step takes a `View` and a `numpy.random.Generator` and returns a new view; it knows no other source of chance.

Dims: h w pixels, n objects, j keypoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image as PIL

from nexus.data.detection.scene import DetectionSample
from nexus.data.geometry import FILTERS, crop, flip, resize
from nexus.data.images import Image, as_array, image_size

MIN_SIDE = 0.1
"""Objects whose box has a side below this many pixels are left out."""


@dataclass(frozen=True, eq=False)
class View:
    """An image on its way to the model, and the objects in it; crowds are left out already.

    Attributes:
        boxes: xyxy in pixels of the image.
        labels: Of the objects.
        masks: What they cover; None where some object has none.
        keypoints: x, y, visibility; an object without keypoints has zeros. None where the data has no keypoints.
    """

    image: Image
    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"] | None = None
    keypoints: Float[np.ndarray, "n j 3"] | None = None

    def keep(self, kept: Bool[np.ndarray, " n"]) -> "View":
        """Only some of the objects."""
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            masks=None if self.masks is None else self.masks[kept],
            keypoints=None if self.keypoints is None else self.keypoints[kept],
        )


def view_of(sample: DetectionSample, num_keypoints: int = 0) -> View:
    """The objects of a sample that are trained on."""
    scene = sample.scene
    objects = [one for one in scene.objects if not one.crowd]
    runs = [scene.rle(one) for one in objects]
    masks = None
    if all(one is not None for one in runs):
        masks = np.zeros((len(objects), *scene.size), dtype=bool)
        for place, one in enumerate(runs):
            assert one is not None
            masks[place] = one.decode()
    keypoints = None
    if num_keypoints:
        empty = np.zeros((num_keypoints, 3))
        points = [empty if one.keypoints is None else one.keypoints for one in objects]
        keypoints = np.array(points, dtype=np.float64).reshape(-1, num_keypoints, 3)
    boxes = np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4)
    return View(sample.image, boxes, np.array([one.label for one in objects], dtype=np.int64), masks, keypoints)


class Step(Protocol):
    """Anything that makes a view of a view; deterministic ones ignore `rng`."""

    def __call__(self, view: View, rng: np.random.Generator) -> View: ...


@dataclass(frozen=True)
class OnImage:
    """A step of `nexus.data.transforms` that moves no pixel: colours, channels."""

    change: Any

    def __call__(self, view: View, rng: np.random.Generator) -> View:
        return replace(view, image=self.change(view.image, rng))


@dataclass(frozen=True)
class ResizeTo:
    """Scales the image as one of the resizing steps of `nexus.data.geometry` does."""

    step: Any

    def __call__(self, view: View, rng: np.random.Generator) -> View:
        image = self.step(view.image, rng)
        return rescaled(view, image)


def rescaled(view: View, image: Image) -> View:
    """The view with its image replaced by a scaled one."""
    (old_h, old_w), (h, w) = image_size(view.image), image_size(image)
    factors = np.array([w / old_w, h / old_h])
    masks, keypoints = view.masks, view.keypoints
    if masks is not None and (h, w) != (old_h, old_w):
        scaled = [
            np.asarray(PIL.fromarray(mask.astype(np.uint8)).resize((w, h), FILTERS["nearest"])) > 0 for mask in masks
        ]
        masks = np.array(scaled, dtype=bool).reshape(-1, h, w)
    if keypoints is not None:
        keypoints = keypoints * [*factors, 1]
    return replace(view, image=image, boxes=view.boxes * np.tile(factors, 2), masks=masks, keypoints=keypoints)


@dataclass(frozen=True)
class Flip:
    """Mirrors left to right with a probability.

    Attributes:
        swap: For each keypoint the one that it becomes: a left eye becomes a right one; see `mirror`.
    """

    probability: float = 0.5
    swap: tuple[int, ...] = ()

    def __call__(self, view: View, rng: np.random.Generator) -> View:
        if rng.random() >= self.probability:
            return view
        width = image_size(view.image)[1]
        x1, y1, x2, y2 = view.boxes.T
        keypoints = view.keypoints
        if keypoints is not None:
            keypoints = keypoints[:, list(self.swap)] if self.swap else keypoints.copy()
            keypoints[..., 0] = np.where(keypoints[..., 2] > 0, width - keypoints[..., 0], 0)
        return replace(
            view,
            image=flip(view.image),
            boxes=np.stack([width - x2, y1, width - x1, y2], axis=1),
            masks=None if view.masks is None else view.masks[:, :, ::-1],
            keypoints=keypoints,
        )


@dataclass(frozen=True)
class Crop:
    """A random part of the image. Objects of which too little is left are dropped.

    Attributes:
        scale: Range of the part's area, as a share of the image's.
        ratio: Range of its width / height, relative to the image's.
        min_visible: Least share of an object's box, or mask, that must be left.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    min_visible: float = 0.3

    def __call__(self, view: View, rng: np.random.Generator) -> View:
        h, w = image_size(view.image)
        side, lean = math.sqrt(rng.uniform(*self.scale)), math.sqrt(rng.uniform(*self.ratio))
        height, width = max(1, round(min(1, side / lean) * h)), max(1, round(min(1, side * lean) * w))
        top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
        return windowed(view, top, left, (height, width), self.min_visible)


def windowed(view: View, top: int, left: int, size: tuple[int, int], min_visible: float) -> View:
    """The window of `size` (height, width) at (top, left); what lies outside of the image is black."""
    height, width = size
    moved = view.boxes - [left, top, left, top]
    boxes = np.clip(moved, 0, [width, height, width, height])
    left_over = _area(boxes) / np.maximum(_area(moved), 1e-9)
    masks, keypoints = view.masks, view.keypoints
    if masks is not None:
        before = np.maximum(masks.sum(axis=(1, 2)), 1)
        masks = np.array(
            [as_array(crop(mask[..., None], top, left, size))[..., 0] > 0 for mask in masks.astype(np.uint8)]
        )
        masks = masks.reshape(-1, height, width).astype(bool)
        left_over = np.minimum(left_over, masks.sum(axis=(1, 2)) / before)
    if keypoints is not None:
        keypoints = keypoints - [left, top, 0]
        inside = (keypoints[..., :2] >= 0).all(-1) & (keypoints[..., :2] <= [width, height]).all(-1)
        keypoints = np.where((inside & (keypoints[..., 2] > 0))[..., None], keypoints, 0)
    whole = replace(view, image=crop(view.image, top, left, size), boxes=boxes, masks=masks, keypoints=keypoints)
    return whole.keep((left_over >= min_visible) & (left_over > 0))


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).clip(min=0) * (boxes[:, 3] - boxes[:, 1]).clip(min=0)


@dataclass(frozen=True)
class ScaleJitter:
    """Scales by a random factor and cuts or pads to a fixed size: large-scale jitter.

    Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", 2021, Sec. 3.

    Attributes:
        size: (height, width) of the result.
        scale: Range of the factor, 1 being the largest image that fits `size`; (0.1, 2) is the paper's.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.1, 2.0)
    min_visible: float = 0.1
    interpolation: str = "bilinear"

    def __call__(self, view: View, rng: np.random.Generator) -> View:
        h, w = image_size(view.image)
        factor = rng.uniform(*self.scale) * min(self.size[0] / h, self.size[1] / w)
        scaled = (max(1, round(h * factor)), max(1, round(w * factor)))
        view = rescaled(view, resize(view.image, scaled, self.interpolation))
        free = [have - want for have, want in zip(scaled, self.size)]
        top, left = (int(rng.integers(one + 1)) if one > 0 else 0 for one in free)
        return windowed(view, top, left, self.size, self.min_visible)


@dataclass(frozen=True)
class DropFlat:
    """Leaves out objects whose box has next to no area, or whose mask is empty."""

    def __call__(self, view: View, rng: np.random.Generator) -> View:
        kept: np.ndarray = np.all(view.boxes[:, 2:] - view.boxes[:, :2] >= MIN_SIDE, axis=1)
        if view.masks is not None:
            kept &= view.masks.any(axis=(1, 2))
        return view if kept.all() else view.keep(kept)


def mosaic(views: Sequence[View], size: tuple[int, int], rng: np.random.Generator, min_visible: float = 0.2) -> View:
    """Four images around a random point of one image of `size` (height, width).

    Bochkovskiy et al., "YOLOv4: Optimal Speed and Accuracy of Object Detection", 2020, Sec. 3.3.
    """
    height, width = size
    y, x = round(rng.uniform(0.3, 0.7) * height), round(rng.uniform(0.3, 0.7) * width)
    corners = [(0, 0, y, x), (0, x, y, width - x), (y, 0, height - y, x), (y, x, height - y, width - x)]
    parts = []
    for view, (top, left, h, w) in zip(views, corners, strict=True):
        have_h, have_w = image_size(view.image)
        factor = max(h / have_h, w / have_w)
        scaled = (max(h, round(have_h * factor)), max(w, round(have_w * factor)))
        part = rescaled(view, resize(view.image, scaled, "bilinear"))
        cut_y, cut_x = int(rng.integers(scaled[0] - h + 1)), int(rng.integers(scaled[1] - w + 1))
        part = windowed(part, cut_y, cut_x, (h, w), min_visible)
        parts.append(windowed(part, -top, -left, size, 0.0))
    return _joined(parts, sum_images([part.image for part in parts]))


def sum_images(images: Sequence[Image]) -> Image:
    """The sum of images that are black outside of their own quarter."""
    arrays = [as_array(image) for image in images]
    total = np.sum(arrays, axis=0).astype(arrays[0].dtype)
    if isinstance(images[0], PIL.Image):
        return PIL.fromarray(total if total.shape[2] > 1 else total[..., 0])
    return total


def copy_paste(view: View, other: View, rng: np.random.Generator, min_visible: float = 0.3) -> View:
    """Pastes a random half of the objects of another image of the same size; both need masks.

    Ghiasi et al. 2021, Sec. 3. What is covered is cut out of the masks below, and their boxes shrink to what is left.
    """
    if view.masks is None or other.masks is None or not len(other.labels):
        return view
    if image_size(view.image) != image_size(other.image):
        raise ValueError(
            f"copy_paste takes images of one size, not {image_size(view.image)}, {image_size(other.image)}."
        )
    pasted = other.keep(rng.permutation(len(other.labels)) < (len(other.labels) + 1) // 2)
    assert pasted.masks is not None
    over: np.ndarray = np.any(pasted.masks, axis=0)
    image = np.where(over[..., None], as_array(other.image), as_array(view.image))
    remaining = view.masks & ~over
    share = remaining.sum(axis=(1, 2)) / np.maximum(view.masks.sum(axis=(1, 2)), 1)
    touched = share < 1
    boxes = np.where(touched[:, None], np.array([_extent(mask) for mask in remaining]).reshape(-1, 4), view.boxes)
    below = replace(view, boxes=boxes, masks=remaining).keep((share >= min_visible) & (share > 0))
    whole = PIL.fromarray(image if image.shape[2] > 1 else image[..., 0]) if image.dtype == np.uint8 else image
    return _joined([below, pasted], whole)


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _joined(views: Sequence[View], image: Image) -> View:
    """All objects of several views on one image; masks and keypoints only where all views have them."""
    masks = [view.masks for view in views if view.masks is not None]
    keypoints = [view.keypoints for view in views if view.keypoints is not None]
    return View(
        image,
        np.concatenate([view.boxes for view in views]),
        np.concatenate([view.labels for view in views]),
        np.concatenate(masks) if len(masks) == len(views) else None,
        np.concatenate(keypoints) if len(keypoints) == len(views) else None,
    )
