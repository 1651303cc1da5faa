"""Points, boxes and masks as an exported promptable segmenter takes them, in NumPy.

Dims: p prompts, n points of a prompt, k masks of a prompt, h w pixels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nexus.core.config import nearest
from nexus.deploy.onnx_images import Seen, padded

if TYPE_CHECKING:
    from nexus.deploy.onnx_model import OnnxModel

KINDS = {"points": 2, "labels": 1, "boxes": 1, "masks": 2}
"""What may be asked with, and the dimensions that one prompt has: points (n, 2), labels (n,), a box (4,), a mask."""
NUMBERS = {"points": 2, "boxes": 4}
MASKS = "mask_prompts"
NO_POINT, FIRST_CORNER, SECOND_CORNER = -1, 2, 3
"""Labels of places that hold no point, and of the corners of a box."""


def prompt_inputs(prompts: Any, low_size: tuple[int, int], *, always_ended: bool = False) -> dict[str, np.ndarray]:
    """Returns what the stage that decodes takes, for p prompts about one image.

    Args:
        prompts: A mapping with `points` and their `labels`, `boxes`, `masks`, in any combination, in pixels of what
            the model sees: of one prompt, or with a dimension in front for several. Points without labels are of the
            object.
        low_size: (height, width) of `low_res_masks`, which masks are.
        always_ended: Whether a place of no point follows the points of a box, too, as in SAM 2.

    Returns:
        `points` (1, p, n, 2), `labels` (1, p, n) with -1 for no point, and 2 and 3 for the corners of a box,
        `mask_prompts` (1, p, low_h, low_w) and `has_mask_prompts` (1, p).

    Raises:
        ValueError: There is no prompt, one is not known, or they do not fit together.
    """
    given = _arrays(prompts)
    count = len(next(iter(given.values())))
    points = given.get("points", np.zeros((count, 0, 2), np.float32))
    labels = given.get("labels", np.ones(points.shape[:2]))
    if labels.shape != points.shape[:2]:
        raise ValueError(f"labels have the shape {labels.shape} and points {points.shape}; each point has one.")
    if always_ended or ("points" in given and "boxes" not in given):
        points = np.concatenate([points, np.zeros((count, 1, 2))], axis=1)
        labels = np.concatenate([labels, np.full((count, 1), NO_POINT)], axis=1)
    if "boxes" in given:
        points = np.concatenate([points, given["boxes"].reshape(count, 2, 2)], axis=1)
        labels = np.concatenate([labels, np.tile([FIRST_CORNER, SECOND_CORNER], (count, 1))], axis=1)
    masks = given.get("masks", np.zeros((count, *low_size)))
    if masks.shape[1:] != low_size:
        raise ValueError(f"masks are {masks.shape[1:]}; they are `low_res_masks` of an earlier answer: {low_size}.")
    return {
        "points": points[None].astype(np.float32),
        "labels": labels[None].astype(np.int64),
        "mask_prompts": masks[None].astype(np.float32),
        "has_mask_prompts": np.full((1, count), "masks" in given),
    }


def _arrays(prompts: Any) -> dict[str, np.ndarray]:
    """Returns what is given, each with a dimension of prompts in front."""
    if not isinstance(prompts, Mapping):
        raise ValueError("A model that answers prompts needs some, such as prompts={'points': [[500, 375]]}.")
    found = {}
    for key, value in prompts.items():
        if key not in KINDS:
            raise ValueError(f"There is no prompt {key!r}. {nearest(str(key), KINDS)}")
        if value is not None:
            array = np.asarray(value, dtype=np.float64)
            if key in NUMBERS and array.shape[-1:] != (NUMBERS[key],):
                raise ValueError(f"{key} have the shape {array.shape}; a point is x, y and a box x1, y1, x2, y2.")
            if array.ndim not in (KINDS[key], KINDS[key] + 1):
                raise ValueError(f"{key} have the shape {array.shape}, which is neither one prompt nor several.")
            found[key] = array[None] if array.ndim == KINDS[key] else array
    if not found or set(found) == {"labels"}:
        raise ValueError("There is no prompt: give points, boxes or masks.")
    if len({len(value) for value in found.values()}) > 1:
        told = ", ".join(f"{key} {len(value)}" for key, value in found.items())
        raise ValueError(f"Numbers of prompts do not agree: {told}.")
    return found


def answer_prompts(model: "OnnxModel", one: Seen, prompts: Any) -> dict[str, Any]:
    """Returns the mask of each prompt about one image, in the size of the image as given."""
    if model.preprocessing is None or model.preprocessing.resize != "within":
        raise ValueError(f"{model.path} fills no square, so that its masks are drawn otherwise; call run(...).")
    sides = model.canvas([one.inside])
    low = tuple(
        declared if isinstance(declared, int) else side // 4 for declared, side in zip(model.shape(MASKS)[2:], sides)
    )
    given = dict(_arrays(prompts))
    scale = np.array(one.inside[::-1]) / np.array(one.size[::-1])
    for key, by in (("points", scale), ("boxes", np.tile(scale, 2))):
        if key in given:
            given[key] = given[key] * by
    outputs = model.run(images=padded([one.pixels], sides), **prompt_inputs(given, (low[0], low[1])))
    ambiguous = set(given) <= {"points", "labels"} and given["points"].shape[1] == 1
    return {
        "path": one.path,
        "height": one.size[0],
        "width": one.size[1],
        "objects": [
            _best(logits, scores, ambiguous, sides, one)
            for logits, scores in zip(outputs["low_res_masks"][0], outputs["iou_scores"][0], strict=True)
        ],
    }


def _best(logits: np.ndarray, scores: np.ndarray, ambiguous: bool, sides: tuple[int, int], one: Seen) -> dict[str, Any]:
    """Returns the mask of a prompt: of one that may mean several things the best of the others, else the first."""
    chosen = 1 + int(scores[1:].argmax()) if ambiguous else 0
    large = bilinear(logits[chosen], sides)[: one.inside[0], : one.inside[1]]
    return {"mask": bilinear(large, one.size) > 0, "score": float(scores[chosen])}


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a map (h, w) at another size, as torch's `interpolate` does: bilinear, pixels as squares, no filter."""
    for axis, wanted in enumerate(size):
        have = values.shape[axis]
        if have == wanted:
            continue
        place = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(have / wanted) - np.float32(0.5)
        place = place.clip(min=0)
        first = place.astype(np.int64).clip(max=have - 1)
        share = (place - first).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        following = (first + 1).clip(max=have - 1)
        values = values.take(first, axis) * (1 - share) + values.take(following, axis) * share
    return values
