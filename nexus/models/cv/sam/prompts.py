"""What a promptable segmenter is asked: points, boxes and masks of one image, or of several.

Dims: b images, p prompts of an image, n points of a prompt, h w sides of a mask.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nexus.core.config import nearest

KINDS = {"points": 2, "labels": 1, "boxes": 1, "masks": 2}
"""What a prompt may hold, and the dimensions of it: points (n, 2), their labels (n,), a box (4,), a mask (h, w)."""


class Prompts(NamedTuple):
    """Prompts as tensors, p for each of b images. Places are pixels of the image as the model sees it.

    Attributes:
        points: (b, p, n, 2) x and y, or None.
        labels: (b, p, n), for each point 1 (of the object), 0 (not of it) or -1 (no point); None without points.
        boxes: (b, p, 4) x1, y1, x2, y2, or None.
        masks: (b, p, h, w) logits, such as `low_res_masks` of an earlier answer, or None.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


def read_prompts(prompt: Any, like: Tensor, image_size: tuple[int, int], mask_size: tuple[int, int]) -> Prompts:
    """Returns a prompt of any nesting as tensors with both leading dimensions.

    Args:
        prompt: A mapping (or `Prompts`) of `points`, `labels`, `boxes`, `masks`: of one prompt (points (n, 2), a box
            (4,), a mask (h, w)), of p prompts (points (p, n, 2), ...), or of p prompts for each of several images
            (points (b, p, n, 2), ...). Without labels all points are of the object.
        like: A tensor of the wanted type, where the model is.
        image_size: (height, width) in pixels of what the model sees.
        mask_size: (height, width) of its low-resolution masks.

    Raises:
        ValueError: There is no prompt, a key is unknown, or a value does not fit; the message says which and why.
    """
    given = prompt._asdict() if isinstance(prompt, Prompts) else prompt
    if not isinstance(given, Mapping):
        raise ValueError(f"prompt is a {type(prompt).__name__}; give a mapping such as {{'points': [[x, y]]}}.")
    for key in given:
        if key not in KINDS:
            raise ValueError(f"There is no prompt {key!r}. {nearest(str(key), KINDS)}")
    found = {key: _tensor(key, value, like) for key, value in given.items() if value is not None}
    _check_together(found)
    if "points" in found and "labels" not in found:
        found["labels"] = torch.ones(found["points"].shape[:-1], device=like.device)
    _check_shapes(found, mask_size)
    _check_places(found, image_size)
    if "labels" in found:
        found["labels"] = found["labels"].long()
    return Prompts(**found)


def _tensor(key: str, value: Any, like: Tensor) -> Tensor:
    try:
        tensor = torch.as_tensor(value, device=like.device).to(like.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{key} are not numbers in rows of one length: {error}.") from None
    least = KINDS[key]
    if not least <= tensor.ndim <= least + 2:
        forms = {"points": "(n, 2)", "labels": "(n,)", "boxes": "(4,)", "masks": "(h, w)"}[key]
        raise ValueError(
            f"{key} have shape {tuple(tensor.shape)}; of one prompt they are {forms}, with a dimension in front for"
            " several prompts, and one more for several images."
        )
    return tensor[(None,) * (least + 2 - tensor.ndim)]


def _check_together(found: Mapping[str, Tensor]) -> None:
    if not found:
        raise ValueError("There is no prompt: give points, boxes or masks.")
    if "labels" in found and "points" not in found:
        raise ValueError("labels are given without points; they say of each point whether it is of the object.")


def _check_shapes(found: Mapping[str, Tensor], mask_size: tuple[int, int]) -> None:
    counts = {key: tuple(value.shape[:2]) for key, value in found.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key} {images} x {prompts}" for key, (images, prompts) in counts.items())
        raise ValueError(f"Images x prompts do not agree: {told}.")
    if not all(next(iter(counts.values()))):
        raise ValueError("There are 0 prompts; give at least one.")
    if "points" in found:
        points, labels = found["points"], found["labels"]
        if points.shape[-1] != 2 or not points.shape[2]:
            raise ValueError(
                f"points have shape {tuple(points.shape)}; the last dimension is x and y, of 1 point or more."
            )
        if labels.shape != points.shape[:-1]:
            raise ValueError(f"There are {points.shape[2]} points and {labels.shape[2]} labels; each point has one.")
        if not torch.isin(labels, labels.new_tensor([-1, 0, 1])).all():
            raise ValueError("labels are 1 (of the object), 0 (not of it) or -1 (no point).")
    if "boxes" in found and found["boxes"].shape[-1] != 4:
        raise ValueError(f"boxes have {found['boxes'].shape[-1]} numbers; a box is x1, y1, x2, y2.")
    if "masks" in found and tuple(found["masks"].shape[-2:]) != mask_size:
        height, width = found["masks"].shape[-2:]
        raise ValueError(
            f"masks have {height} x {width} pixels; a mask prompt is the {mask_size[0]} x {mask_size[1]} logits of an"
            " earlier answer (`low_res_masks`)."
        )


def _check_places(found: Mapping[str, Tensor], image_size: tuple[int, int]) -> None:
    height, width = image_size
    for key, value in found.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} hold a number that is not finite.")
    if "points" in found:
        real = found["points"][found["labels"] != -1]
        outside = ((real < 0) | (real > real.new_tensor([width, height]))).any(dim=-1)
        if outside.any():
            x, y = real[outside][0].tolist()
            raise ValueError(f"The point ({x:g}, {y:g}) is outside of the image, which is {width} x {height} pixels.")
    if "boxes" in found:
        boxes = found["boxes"].flatten(0, 1)
        turned = (boxes[:, 2:] <= boxes[:, :2]).any(dim=-1)
        if turned.any():
            told = ", ".join(f"{number:g}" for number in boxes[turned][0].tolist())
            raise ValueError(f"The box ({told}) is turned round or empty; it is x1, y1, x2, y2 with x1 < x2, y1 < y2.")
        limit = boxes.new_tensor([width, height, width, height])
        outside = ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= limit[:2])).any(dim=-1)
        if outside.any():
            told = ", ".join(f"{number:g}" for number in boxes[outside][0].tolist())
            raise ValueError(f"The box ({told}) is outside of the image, which is {width} x {height} pixels.")


def repeat_for(prompts: Prompts, images: int) -> Prompts:
    """Returns prompts for so many images: those of one image are asked of each.

    Raises:
        ValueError: There are prompts for another number of images.
    """
    given = next(value for value in prompts if value is not None).shape[0]
    if given not in (1, images):
        raise ValueError(f"There are prompts for {given} images, and {images} images.")
    return Prompts(*(None if value is None else value.expand(images, *value.shape[1:]) for value in prompts))
