"""Clicks and boxes of a simulated person, who points at what a mask got wrong.

Kirillov et al., "Segment Anything", 2023, Appendix A, "Training algorithm" (at random, to train) and Appendix D.1 (in
the middle of the error, to measure).

Dims: n masks, h w pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nexus.core.config import Config


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Config):
    """How a promptable segmenter is asked in training. Defaults are the paper's ("Training algorithm").

    Attributes:
        rounds: Clicks into the error of the mask before, after the first prompt.
        refinements: Further rounds without a new click, in which the last mask alone is new: one at the end, the others
            at random places.
        box_share: How often the first prompt is a box; else it is a point of the object.
        box_noise: Standard deviation by which the sides of a box are moved, as a share of its width or height.
        max_box_noise: Pixels that a side is moved by at most.
        max_objects: Objects of an image that are asked about in a step; of more, as many are drawn.
    """

    rounds: int = 8
    refinements: int = 2
    box_share: float = 0.5
    box_noise: float = 0.1
    max_box_noise: float = 20.0
    max_objects: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("rounds", 0), ("refinements", 0), ("max_objects", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"PromptConfig.{name} is {getattr(self, name)}; it must be at least {least}.")
        if not 0 <= self.box_share <= 1:
            raise ValueError(f"PromptConfig.box_share is {self.box_share}; it is a share, from 0 to 1.")
        if not (0 <= self.box_noise < math.inf and 0 <= self.max_box_noise < math.inf):
            raise ValueError("PromptConfig.box_noise and max_box_noise must be at least 0 and finite.")


@dataclass(frozen=True, kw_only=True)
class ClipPromptConfig(Config):
    """How SAM 2 is asked about the objects of clips in training. Defaults are those of the released configuration.

    Attributes:
        frames: Of a clip, in a row, in a step.
        max_objects: Objects of a clip that are asked about in a step; of more, as many are drawn.
        point_share: How often objects are first pointed at by a click or a box; else by their mask.
        box_share: How often that is a box.
        prompted_frames: Frames at most in which they are pointed at.
        corrected_frames: Frames at most in which clicks go on, among them those that are prompted.
        corrections: Clicks in each of them.
        blind_share: How often such a click does not look at the error, and is anywhere on the object.
        box_noise: Standard deviation by which the sides of a box are moved, as a share of its width or height.
        max_box_noise: Pixels that a side is moved by at most.
        reverse: How often a clip runs backwards.
    """

    frames: int = 8
    max_objects: int = 3
    point_share: float = 0.5
    box_share: float = 0.5
    prompted_frames: int = 2
    corrected_frames: int = 2
    corrections: int = 7
    blind_share: float = 0.1
    box_noise: float = 0.1
    max_box_noise: float = 20.0
    reverse: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"frames": 1, "max_objects": 1, "prompted_frames": 1, "corrected_frames": 0, "corrections": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"ClipPromptConfig.{name} is {getattr(self, name)}; it must be at least {value}.")
        for name in ("point_share", "box_share", "blind_share", "reverse"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"ClipPromptConfig.{name} is {getattr(self, name)}; it is a share, from 0 to 1.")
        if not (0 <= self.box_noise < math.inf and 0 <= self.max_box_noise < math.inf):
            raise ValueError("ClipPromptConfig.box_noise and max_box_noise must be at least 0 and finite.")


def random_clicks(
    wanted: Bool[Tensor, "n h w"], found: Bool[Tensor, "n h w"]
) -> tuple[Int[Tensor, "n 2"], Int[Tensor, " n"]]:
    """Returns a pixel (x, y) of the error of each mask, every one as likely, and its label.

    The label is 1 where the object was missed and 0 where there is none. A mask without an error is clicked beside the
    object. Chance is torch's own, of the device of the masks.

    Args:
        wanted: The objects.
        found: What was said of them; empty for a first click, which then lies on the object.
    """
    error = wanted ^ found
    perfect = ~error.flatten(1).any(dim=1)
    region = torch.where(perfect[:, None, None], ~wanted, error).flatten(1)
    chance = torch.rand(region.shape, device=region.device)
    place = torch.where(region, chance, -1.0).argmax(dim=1)
    width = wanted.shape[2]
    labels = wanted.flatten(1).gather(1, place[:, None])[:, 0].long()
    return torch.stack([place % width, place // width], dim=1), labels


def central_click(wanted: Bool[np.ndarray, "h w"], found: Bool[np.ndarray, "h w"]) -> tuple[int, int, int] | None:
    """Returns the pixel (x, y) that lies deepest inside the error of a mask, and its label; None without an error.

    What was missed (label 1) and what was found beside the object (label 0) are two regions; the deeper one is
    clicked, and of equal ones the first. What lies outside of the image belongs to neither.

    Raises:
        ImportError: scipy is not installed.
    """
    missed, x, y = _deepest(wanted & ~found)
    false, other_x, other_y = _deepest(found & ~wanted)
    if missed == false == 0:
        return None
    return (x, y, 1) if missed >= false else (other_x, other_y, 0)


def _deepest(region: Bool[np.ndarray, "h w"]) -> tuple[float, int, int]:
    """The largest distance of a pixel of a region to the nearest one that is not of it, and that pixel's x and y."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not len(rows):
        return 0.0, 0, 0
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError(
            "Clicks in the middle of an error need scipy, which is missing: pip install scipy."
        ) from error
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(region[top : rows[-1] + 1, left : columns[-1] + 1], 1)  # nothing nearer lies farther out
    depth = ndimage.distance_transform_edt(part)
    assert isinstance(depth, np.ndarray)
    y, x = divmod(int(depth.argmax()), part.shape[1])
    return float(depth[y, x]), left + x - 1, top + y - 1


def boxes_around(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """Returns x1, y1, x2, y2 in continuous pixels around masks of which none is empty."""
    sides = []
    for kept in (masks.any(dim=1), masks.any(dim=2)):
        places = torch.arange(kept.shape[1], device=masks.device)
        first = torch.where(kept, places, kept.shape[1]).amin(dim=1)
        sides.append((first, torch.where(kept, places, -1).amax(dim=1) + 1))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def noisy_boxes(
    boxes: Float[Tensor, "n 4"], size: tuple[int, int], *, noise: float = 0.1, most: float = 20.0
) -> Float[Tensor, "n 4"]:
    """Returns boxes whose sides were each moved at random, inside an image of `size` (height, width).

    Args:
        boxes: x1, y1, x2, y2 in pixels.
        size: Of the image; no side leaves it.
        noise: Standard deviation of the move, as a share of the box's width or height.
        most: Pixels that a side is moved by at most.
    """
    height, width = size
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + (torch.randn_like(boxes) * noise * sides).clamp(-most, most)
    limit = boxes.new_tensor([width, height])
    corners = torch.stack([moved[:, :2], moved[:, 2:]]).clamp(min=0).minimum(limit)
    return torch.cat([corners.amin(dim=0), corners.amax(dim=0)], dim=1)
