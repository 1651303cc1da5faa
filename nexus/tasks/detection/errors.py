"""Where a detector is wrong: objects that it missed, finds where nothing is, and right boxes of a wrong class.

Dims: n finds, m objects.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from nexus.data.detection.scene import Scene
from nexus.ops.boxes import iou, pairwise
from nexus.tasks.detection.coco_figures import Found

IOU, SCORE = 0.5, 0.3


class Errors(NamedTuple):
    """What became of the finds and the objects of one image, as positions in both.

    Attributes:
        right: Pairs of a find and the object of its class that it covers.
        confused: Pairs of a find and an object of another class that it covers.
        false: Finds that cover no object which another did not find before.
        missed: Objects that no find covers.
    """

    right: list[tuple[int, int]]
    confused: list[tuple[int, int]]
    false: list[int]
    missed: list[int]


def find_errors(scene: Scene, found: Found, *, min_iou: float = IOU, min_score: float = SCORE) -> Errors:
    """Returns what is right and wrong in one image.

    The surest find chooses first, and takes the object of its class that it covers best; what is left over may be
    confused with objects of other classes. Crowds and difficult objects do not count, nor do finds on them.

    Args:
        scene: The truth.
        found: What was found.
        min_iou: How far find and object must agree.
        min_score: Finds below are left out.
    """
    overlap = overlaps(scene, found)
    labels = [one.label for one in scene.objects]
    ignored = {m for m, one in enumerate(scene.objects) if one.crowd or one.difficult}
    finds = [n for n in np.argsort(-found.scores, kind="stable").tolist() if found.scores[n] >= min_score]
    free = {m for m in range(len(labels)) if m not in ignored}

    def pair_up(rows: list[int], same_class: bool) -> tuple[list[tuple[int, int]], list[int]]:
        pairs, left = [], []
        for n in rows:
            fitting = [m for m in free if (labels[m] == found.labels[n]) == same_class and overlap[n, m] >= min_iou]
            best = max(fitting, key=lambda m: overlap[n, m], default=None)
            if best is None:
                left.append(n)
            else:
                free.discard(best)
                pairs.append((n, best))
        return pairs, left

    right, rest = pair_up(finds, True)
    confused, rest = pair_up(rest, False)
    false = [n for n in rest if not any(overlap[n, m] >= min_iou for m in ignored)]
    return Errors(right, confused, false, sorted(free))


def overlaps(scene: Scene, found: Found) -> Float[np.ndarray, "n m"]:
    """Returns the intersection over union of every find with every object."""
    boxes = torch.as_tensor(np.asarray([one.box for one in scene.objects], dtype=np.float64).reshape(-1, 4))
    finds = torch.as_tensor(np.asarray(found.boxes, dtype=np.float64).reshape(-1, 4))
    return pairwise(iou, finds, boxes).numpy()


class Curve(NamedTuple):
    """Recall, precision and score after each find of a class, surest first; empty if it has no objects."""

    recall: Float[np.ndarray, " n"]
    precision: Float[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]


def precision_recall(
    scenes: Sequence[Scene], found: Sequence[Found], labels: Sequence[int], *, min_iou: float = IOU
) -> list[Curve]:
    """Returns the curve of each of these classes.

    Args:
        scenes: The truth.
        found: What was found in each of them.
        labels: Numbers of the classes.
        min_iou: How far find and object must agree.
    """
    errors = [
        find_errors(scene, one, min_iou=min_iou, min_score=-np.inf) for scene, one in zip(scenes, found, strict=True)
    ]
    return [_curve(scenes, found, errors, label) for label in labels]


def _curve(scenes: Sequence[Scene], found: Sequence[Found], errors: Sequence[Errors], label: int) -> Curve:
    scores, hits, total = [], [], 0
    for scene, one, fates in zip(scenes, found, errors):
        right = {n for n, _ in fates.right}
        counted = [*right, *fates.false, *(n for n, _ in fates.confused)]
        own = [n for n in counted if one.labels[n] == label]
        scores += [float(one.scores[n]) for n in own]
        hits += [n in right for n in own]
        total += sum(thing.label == label and not (thing.crowd or thing.difficult) for thing in scene.objects)
    if not total:
        return Curve(*(np.empty(0),) * 3)
    order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    reached = np.cumsum(np.asarray(hits, dtype=float)[order])
    return Curve(reached / total, reached / np.arange(1, len(order) + 1), np.asarray(scores, dtype=float)[order])
