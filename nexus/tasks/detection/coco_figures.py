"""COCO's figures: average precision and recall of boxes, masks and keypoints.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014; the definitions: https://cocodataset.org/#detection-eval

The matching is that of faster-coco-eval, which gives pycocotools' numbers. What that passes over in silence is settled
here: ids count from 1, `iscrowd` and `area` are filled in, a score that is not a number is refused, and a figure that
nothing was there to measure for is None, not -1.

Dims: n detections, j keypoints, t thresholds, r recalls, k classes, a areas, m limits of detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nexus.data.detection.rle import RLE, write_counts
from nexus.data.detection.scene import Scene

Kind = Literal["bbox", "segm", "keypoints"]


class Found(NamedTuple):
    """What a detector found in one image, in pixels of the image as annotated.

    Attributes:
        boxes: xyxy.
        scores: Any finite numbers.
        labels: Classes, counted from 0.
        masks: One for each; None where the detector has none.
        keypoints: x, y and a score of its own; likewise.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    masks: tuple[RLE, ...] | None = None
    keypoints: Float[np.ndarray, "n j 3"] | None = None


@dataclass(frozen=True)
class CocoFigures:
    """Figures of one kind; None means that nothing was there to measure.

    Attributes:
        kind: "bbox", "segm" or "keypoints".
        figures: `AP`, `AP50`, `AP75`, `AP_small`, ..., `AR100`, ..., from 0 to 1, in COCO's order.
        per_class: `AP` of each class.
    """

    kind: Kind
    figures: dict[str, float | None]
    per_class: list[float | None]


class _Figure(NamedTuple):
    """Where a figure stands in COCO's tables: which area, how many detections, at which overlap (None: all)."""

    name: str
    area: int
    limit: int
    iou: float | None = None


_OBJECTS = [
    _Figure("AP", 0, 2), _Figure("AP50", 0, 2, 0.5), _Figure("AP75", 0, 2, 0.75),
    _Figure("AP_small", 1, 2), _Figure("AP_medium", 2, 2), _Figure("AP_large", 3, 2),
    _Figure("AR1", 0, 0), _Figure("AR10", 0, 1), _Figure("AR100", 0, 2),
    _Figure("AR_small", 1, 2), _Figure("AR_medium", 2, 2), _Figure("AR_large", 3, 2),
]  # fmt: skip
_KEYPOINTS = [
    _Figure("AP", 0, 0), _Figure("AP50", 0, 0, 0.5), _Figure("AP75", 0, 0, 0.75),
    _Figure("AP_medium", 1, 0), _Figure("AP_large", 2, 0),
    _Figure("AR", 0, 0), _Figure("AR50", 0, 0, 0.5), _Figure("AR75", 0, 0, 0.75),
    _Figure("AR_medium", 1, 0), _Figure("AR_large", 2, 0),
]  # fmt: skip


def coco_figures(
    scenes: Sequence[Scene],
    found: Sequence[Found],
    num_classes: int,
    kind: Kind = "bbox",
    *,
    sigmas: Sequence[float] | None = None,
) -> CocoFigures:
    """Returns the figures of detections in annotated images.

    Args:
        scenes: The truth.
        found: For each scene what was found in it.
        num_classes: Labels run from 0 to `num_classes - 1`.
        kind: What is compared: boxes, masks or keypoints.
        sigmas: How far off each keypoint may be, as a share of the object's size; None means COCO's 17 for a person.

    Raises:
        ValueError: The lengths differ, a score is not finite, a label is no class, or masks or keypoints are missing.
        ImportError: faster-coco-eval is not installed.
    """
    if len(scenes) != len(found):
        raise ValueError(f"There are {len(scenes)} scenes and {len(found)} lists of detections; each scene needs one.")
    if kind not in ("bbox", "segm", "keypoints"):
        raise ValueError(f"kind is {kind!r}; it must be 'bbox', 'segm' or 'keypoints'.")
    truth = _truth(scenes, num_classes, kind)
    rows = [
        row
        for number, pair in enumerate(zip(scenes, found), start=1)
        for row in _rows(number, *pair, num_classes, kind)
    ]
    if not truth["annotations"]:
        return CocoFigures(kind, {one.name: None for one in _table(kind)}, [None] * num_classes)
    precision, recall, thresholds = _match(truth, rows, kind, sigmas)
    figures = {
        one.name: _mean(precision if one.name.startswith("AP") else recall, thresholds, one) for one in _table(kind)
    }
    whole = _table(kind)[0]
    per_class = [_mean(precision[:, :, k : k + 1], thresholds, whole) for k in range(precision.shape[2])]
    return CocoFigures(kind, figures, per_class + [None] * (num_classes - len(per_class)))


def _table(kind: Kind) -> list[_Figure]:
    return _KEYPOINTS if kind == "keypoints" else _OBJECTS


def _mean(table: np.ndarray, thresholds: np.ndarray, figure: _Figure) -> float | None:
    """The mean over what there is: of `precision` (t, r, k, a, m) or `recall` (t, k, a, m)."""
    part = table[..., figure.area, figure.limit]
    if figure.iou is not None:
        part = part[np.isclose(thresholds, figure.iou)]
    part = part[part > -1]
    return float(part.mean()) if len(part) else None


def _match(
    truth: dict[str, Any], rows: list[dict[str, Any]], kind: Kind, sigmas: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision (t, r, k, a, m), recall (t, k, a, m) and the thresholds."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError(
            "COCO's figures need faster-coco-eval, which is not installed: pip install 'nexus-vision[coco]'."
        ) from error
    known = COCO(truth)
    settings = None if sigmas is None else list(sigmas)
    run = COCOeval_faster(known, known.loadRes(rows), kind, kpt_oks_sigmas=settings, rle_iou_max_workers=1)
    run.params.catIds = [one["id"] for one in truth["categories"]]
    run.evaluate()
    run.accumulate()
    return np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"]), np.asarray(run.params.iouThrs)


def _truth(scenes: Sequence[Scene], num_classes: int, kind: Kind) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, start=1):
        for one in scene.objects:
            _check_label(one.label, num_classes, scene)
            x1, y1, x2, y2 = one.box
            row: dict[str, Any] = {
                "id": len(rows) + 1,
                "image_id": number,
                "category_id": one.label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": scene.area(one),
                "iscrowd": int(one.crowd or one.difficult),
            }
            if kind == "segm":
                runs = scene.rle(one)
                if runs is None:
                    raise ValueError(f"{scene.path} has an object without a mask; masks cannot be measured.")
                row["segmentation"] = _segmentation(runs)
            if kind == "keypoints":
                points = np.zeros((0, 3)) if one.keypoints is None else one.keypoints
                row["keypoints"] = points.reshape(-1).tolist()
                row["num_keypoints"] = int((points[:, 2] > 0).sum())
            rows.append(row)
    if kind == "keypoints":
        longest = max((len(row["keypoints"]) for row in rows), default=0)
        for row in rows:
            row["keypoints"] = row["keypoints"] or [0.0] * longest
    return {
        "info": {},
        "images": [{"id": n, "height": scene.height, "width": scene.width} for n, scene in enumerate(scenes, start=1)],
        "annotations": rows,
        "categories": [{"id": label + 1, "name": str(label)} for label in range(num_classes)],
    }


def _segmentation(runs: RLE) -> dict[str, Any]:
    return {"size": [runs.height, runs.width], "counts": write_counts(runs.counts)}


def _rows(number: int, scene: Scene, found: Found, num_classes: int, kind: Kind) -> list[dict[str, Any]]:
    wrong = np.flatnonzero(~np.isfinite(found.scores))
    if len(wrong):
        raise ValueError(f"{scene.path}: the score of detection {wrong[0]} is {found.scores[wrong[0]]}, not a number.")
    if kind == "segm" and found.masks is None:
        raise ValueError(f"{scene.path}: the detections have no masks; measure their boxes (kind='bbox').")
    if kind == "keypoints" and found.keypoints is None:
        raise ValueError(f"{scene.path}: the detections have no keypoints; measure their boxes (kind='bbox').")
    rows: list[dict[str, Any]] = []
    for place, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist(), strict=True)):
        _check_label(label, num_classes, scene)
        row: dict[str, Any] = {"image_id": number, "category_id": label + 1, "score": score}
        if found.masks is not None and kind == "segm":
            runs = found.masks[place]
            if runs.size != scene.size:
                raise ValueError(
                    f"{scene.path}: mask {place} has the size {runs.size}; the image is {scene.size} (h, w)."
                )
            row["segmentation"] = _segmentation(runs)
        elif found.keypoints is not None and kind == "keypoints":
            row["keypoints"] = found.keypoints[place].reshape(-1).tolist()
        else:
            x1, y1, x2, y2 = found.boxes[place].tolist()
            row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        rows.append(row)
    return rows


def _check_label(label: int, num_classes: int, scene: Scene) -> None:
    if not 0 <= label < num_classes:
        raise ValueError(f"{scene.path}: the label {label} is no class; there are {num_classes}, from 0 on.")
