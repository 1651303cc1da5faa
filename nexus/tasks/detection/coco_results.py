"""Figures of a COCO results file: the same numbers as COCO's own tool, for boxes, masks and keypoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.documents import ANNOTATIONS, read_json
from nexus.data.dataset import DataError
from nexus.data.detection import RLE, read_coco
from nexus.data.detection.rle import from_polygons
from nexus.data.detection.scene import Annotations, Scene
from nexus.data.detection.values import checked_runs, is_number, whole
from nexus.data.documents import data_errors
from nexus.tasks.detection.coco_figures import CocoFigures, Found, Kind, coco_figures


def evaluate_coco(
    annotations: str | Path | Annotations,
    results: str | Path | Sequence[dict[str, Any]],
    kind: Kind = "bbox",
    *,
    sigmas: Sequence[float] | None = None,
) -> CocoFigures:
    """Returns the figures of results in COCO's form.

    Args:
        annotations: A COCO file, or what was read of one.
        results: A json file, or its content: a list of `image_id`, `category_id`, `score`, and `bbox` (left, top,
            width, height), `segmentation` or `keypoints`.
        kind: "bbox", "segm" or "keypoints".
        sigmas: Of keypoints; see `coco_figures`.

    Raises:
        DataError: A file is broken, or results name an image or class that is not there; the message names it.
        ValueError: A score is not finite.
        ImportError: faster-coco-eval is not installed.
    """
    truth = annotations if isinstance(annotations, Annotations) else read_coco(annotations)
    name = str(results) if isinstance(results, str | Path) else "results"
    # COCO's tool goes through images by their ids, which decides between equal scores.
    ordered = tuple(sorted(truth.scenes, key=lambda scene: -1 if scene.id is None else scene.id))
    truth = replace(truth, scenes=ordered)
    found = read_results(_rows(results, name), truth, kind, name)
    return coco_figures(ordered, found, len(truth.class_names), kind, sigmas=sigmas)


def short(value: Any) -> str:
    """Returns a value of a file for a message."""
    return value[:200] if isinstance(value, str) else repr(value)[:80]


def read_results(rows: Sequence[dict[str, Any]], truth: Annotations, kind: Kind, name: str = "results") -> list[Found]:
    """Returns what was found in each scene, out of rows in COCO's form.

    Raises:
        DataError: A row names an image or class that is not there, or lacks what is to be measured.
    """
    labels: dict[int | None, int] = {number: label for label, number in enumerate(truth.class_ids)}
    scenes = {scene.id: place for place, scene in enumerate(truth.scenes)}
    parts: list[list[dict[str, Any]]] = [[] for _ in truth.scenes]
    key = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[kind]
    for place, row in enumerate(rows):
        where = f"{name}: results[{place}]"
        if not isinstance(row, dict) or not {"image_id", "category_id", "score", key} <= row.keys():
            raise DataError(f"{where} must have image_id, category_id, score and {key}.")
        if not isinstance(row["score"], int | float | np.number):
            raise DataError(f"{where}: score is {short(row['score'])}; it must be a number.")
        if whole(row["image_id"]) not in scenes:
            raise DataError(f"{where}: image_id is {short(row['image_id'])}, and no image has that id.")
        if whole(row["category_id"]) not in labels:
            raise DataError(f"{where}: category_id is {short(row['category_id'])}, and no category has that id.")
        parts[scenes[whole(row["image_id"])]].append(row)
    return [_found(part, scene, labels, kind, name) for part, scene in zip(parts, truth.scenes)]


def _found(rows: Sequence[dict[str, Any]], scene: Scene, labels: dict[int | None, int], kind: Kind, name: str) -> Found:
    try:
        boxes = np.array([row.get("bbox", [0, 0, 0, 0]) for row in rows], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row["score"] for row in rows], dtype=np.float64)
        classes = np.array([labels[whole(row["category_id"])] for row in rows], dtype=np.int64)
        masks = tuple(_mask(row["segmentation"], scene) for row in rows) if kind == "segm" else None
        points = None
        if kind == "keypoints":
            points = np.array([np.reshape(row["keypoints"], (-1, 3)) for row in rows], dtype=np.float64)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(f"{name}: the results of {scene.path} cannot be read: {short(str(error))}.") from error
    return Found(boxes, scores, classes, masks, points)


def _mask(value: Any, scene: Scene) -> RLE:
    if isinstance(value, list):
        return from_polygons([_ring(ring, scene) for ring in value], scene.height, scene.width)
    if list(map(whole, value["size"])) != list(scene.size):
        raise ValueError(f"a mask has the size {short(value['size'])}; the image is {list(scene.size)} (h, w)")
    return checked_runs(value["counts"], scene.height, scene.width)


def _ring(ring: Any, scene: Scene) -> np.ndarray:
    """An outline; unlike an annotated one it may leave the image, but not by more than the image is long."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2 or not all(map(is_number, ring)):
        raise ValueError("an outline is a list of numbers x, y, x, y, ... of at least 3 points")
    points = np.array(ring, dtype=np.float64).reshape(-1, 2)
    if np.abs(points).max() > 2 * max(scene.size):
        raise ValueError(f"an outline reaches to {np.abs(points).max():g}, far outside of the image")
    return points


def _rows(results: str | Path | Sequence[dict[str, Any]], name: str) -> Sequence[dict[str, Any]]:
    if not isinstance(results, str | Path):
        return results
    with data_errors():
        content = read_json(Path(results), ANNOTATIONS, nan=True)
    if not isinstance(content, list):
        raise DataError(f"{name} holds a {type(content).__name__}; COCO's results are a list.")
    return content
