"""From a detector's outputs to what was found, in pixels of the image as given.

Dims: n objects, h w pixels, j keypoints, s side of a small mask.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nexus.data.detection.rle import RLE, encode
from nexus.ops.masks import paste_masks
from nexus.tasks.detection.coco_figures import Found

MASK_THRESHOLD = 0.5
PASTED_AT_ONCE = 1 << 26
"""Values of full-size masks in memory at once, 256 MiB."""


def found_in(outputs: Mapping[str, Any], place: int, size: tuple[int, int]) -> Found:
    """What was found in one image of a batch, scaled to the image as given.

    Args:
        outputs: Of `DetectionTask.predict`.
        place: Of the image in the batch.
        size: (height, width) of the image as given.
    """
    height, width = outputs["image_sizes"][place]
    factors = outputs["boxes"][place].new_tensor([size[1] / width, size[0] / height], dtype=torch.float64)
    boxes: Float[Tensor, "n 4"] = outputs["boxes"][place].detach().double() * factors.repeat(2)
    masks = keypoints = None
    if "mask_crops" in outputs:
        masks = pasted(outputs["mask_crops"][place].float(), boxes.float(), size)
    elif "masks" in outputs:
        masks = stretched(outputs["masks"][place].float(), size)
    if "keypoints" in outputs:
        points = outputs["keypoints"][place].detach().double()
        keypoints = (points * torch.cat([factors, factors.new_ones(1)])).cpu().numpy()
    scores, labels = outputs["scores"][place].double().cpu().numpy(), outputs["labels"][place].cpu().numpy()
    return Found(boxes.cpu().numpy(), scores, labels, masks, keypoints)


def pasted(crops: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> tuple[RLE, ...]:
    """The small masks of boxes as runs in an image of `size`, some at a time."""
    step = max(1, PASTED_AT_ONCE // (size[0] * size[1]))
    runs: list[RLE] = []
    for part, part_boxes in zip(crops.split(step), boxes.split(step)):
        inside = paste_masks(part, part_boxes, size) >= MASK_THRESHOLD
        runs += [encode(mask) for mask in inside.cpu().numpy()]
    return tuple(runs)


def stretched(masks: Float[Tensor, "n h w"], size: tuple[int, int]) -> tuple[RLE, ...]:
    """Masks of the model's input as runs in an image of `size`."""
    if len(masks) and tuple(masks.shape[-2:]) != size:
        masks = F.interpolate(masks[:, None], size, mode="bilinear", antialias=True)[:, 0]
    return tuple(encode(mask) for mask in (masks >= MASK_THRESHOLD).cpu().numpy())
