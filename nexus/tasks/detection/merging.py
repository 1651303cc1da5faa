"""What was found in the tiles of an image, merged: parts of an object become whole again.

Akyol et al., "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection", 2022.
https://arxiv.org/abs/2202.06934

Two finds are one object when different tiles made them, their classes agree, and the smaller lies mostly inside the
larger (Sec. 3 calls it intersection over smaller area). Finds of one tile are never merged: there the model has
already decided. The surest find of an object stays. If it touches an inner border of its tile it may be a part, and
takes over the extent of those that are merged into it, unless they are too unsure to say anything.

Dims: h w pixels, n finds, t tiles.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from nexus.data.detection.rle import RLE, encode
from nexus.tasks.detection.coco_figures import Found
from nexus.tasks.detection.detections import Detections
from nexus.tasks.tiles import Window
from nexus.tasks.views import ImageInfo

BORDER = 2.0
"""Pixels from an inner border within which a find counts as cut by it."""
SURE = 0.5
"""Share of the surest find's score from which another one lends it its extent."""


def merge_tiles(parts: Sequence[Detections], info: ImageInfo, windows: Sequence[Window], match: float) -> Detections:
    """Returns what was found in an image, of what was found in its windows, best first.

    Args:
        parts: One for each window, in pixels of the window.
        info: Of the image.
        windows: Where they lie in it.
        match: Of `Tiling`.
    """
    found = _merge([part.found for part in parts], windows, (info.height, info.width), match)
    most = max(parts, key=lambda part: len(part.class_names))
    whole = {"path": info.path, "height": info.height, "width": info.width, "image": info.image}
    return replace(most, found=found, **whole)


def _merge(parts: Sequence[Found], windows: Sequence[Window], size: tuple[int, int], match: float) -> Found:
    """Returns what was found in an image of `size` (height, width), of what was found in its windows."""
    boxes = np.concatenate(
        [part.boxes + np.array([w.left, w.top, w.left, w.top]) for part, w in zip(parts, windows, strict=True)]
    )
    tiles = np.repeat(np.arange(len(parts)), [len(part.scores) for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    cut = np.concatenate([_cut(part.boxes, window, size) for part, window in zip(parts, windows)])
    groups = _groups(boxes, scores, labels, tiles, cut, match)
    kept = np.array([group[0] for group in groups], dtype=np.int64)
    merged = [np.concatenate([boxes[group].min(0)[:2], boxes[group].max(0)[2:]]) for group in groups]
    masks = keypoints = None
    if all(part.masks is not None for part in parts):
        small = [mask for part in parts for mask in part.masks or ()]
        masks = tuple(_joined([(small[one], windows[tiles[one]]) for one in group], size) for group in groups)
    if all(part.keypoints is not None for part in parts):
        shifts = [np.array([window.left, window.top, 0.0]) for window in windows]
        keypoints = np.concatenate([part.keypoints + shift for part, shift in zip(parts, shifts)])[kept]
    return Found(np.array(merged, dtype=boxes.dtype).reshape(-1, 4), scores[kept], labels[kept], masks, keypoints)


def _cut(boxes: Float[np.ndarray, "n 4"], window: Window, size: tuple[int, int]) -> np.ndarray:
    """Tells which boxes of a window touch a border of it that is not one of the image."""
    right, bottom = window.left + window.width, window.top + window.height
    inner = np.array([window.left > 0, window.top > 0, right < size[1], bottom < size[0]])
    near = np.concatenate([boxes[:, :2] <= BORDER, boxes[:, 2:] >= np.array([window.width, window.height]) - BORDER], 1)
    return np.any(near & inner, axis=1)


def _groups(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    tiles: Int[np.ndarray, " n"],
    cut: np.ndarray,
    match: float,
) -> list[Int[np.ndarray, " m"]]:
    """Returns the finds that make up each object, the surest first; and the objects likewise."""
    left = np.argsort(-scores, kind="stable")
    groups = []
    while len(left):
        best, rest = left[0], left[1:]
        rivals = (tiles[rest] != tiles[best]) & (labels[rest] == labels[best])
        sure = cut[best] & (scores[rest] >= SURE * scores[best])
        extent, group, same = boxes[best], left[:1], np.zeros(len(rest), bool)
        while True:  # an object may reach over many tiles: what it has grown to may hold more of it
            found = same | (rivals & (_inside(extent, boxes[rest]) >= match))
            if (found == same).all():
                break
            same, group = found, np.concatenate([left[:1], rest[found & sure]])
            extent = np.concatenate([boxes[group].min(0)[:2], boxes[group].max(0)[2:]])
        groups.append(group)
        left = rest[~same]
    return groups


def _inside(box: Float[np.ndarray, " 4"], others: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Intersection over the smaller area."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    smaller = np.minimum(np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], axis=1))
    return np.prod(sides.clip(0), axis=1) / np.maximum(smaller, 1e-9)


def _joined(parts: Sequence[tuple[RLE, Window]], size: tuple[int, int]) -> RLE:
    """The masks of one object, each of its window, as one of the image."""
    whole = np.zeros(size, dtype=bool)
    for mask, window in parts:
        whole[window.top : window.top + window.height, window.left : window.left + window.width] |= mask.decode()
    return encode(whole)
