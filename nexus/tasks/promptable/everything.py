"""Masks of everything in an image: a grid of points is asked about, and the good answers are kept.

Kirillov et al., "Segment Anything", 2023, Appendix B, "Automatic mask generation"; figures as in the authors' code.

Dims: n masks, h w pixels.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nexus.core.config import Config
from nexus.data.detection.rle import RLE, encode
from nexus.models.cv.sam import Prompts
from nexus.models.cv.sam.segmenter import Segmenter, weights_like
from nexus.ops.nms import nms
from nexus.tasks.promptable.segments import Segment

EDGE = 20
"""Pixels: a mask whose box comes so near to an inner edge of a crop is cut off by it."""


@dataclass(frozen=True, kw_only=True)
class Everything(Config):
    """How the whole image is asked about. Defaults are the authors'.

    Attributes:
        points_per_side: Points of the grid across, and as many down.
        points_at_once: Prompts that the decoder answers at once.
        min_score: Masks whose predicted IoU is not above are left out; None is 0.88 of SAM, 0.8 of SAM 2.
        min_stability: Masks whose outline moves more when the threshold does are left out: least IoU of the masks
            with logits above `stability_offset` and above minus that.
        stability_offset: Of the threshold, in logits.
        max_overlap: Of the boxes of two masks, as IoU; of more, the better one is kept.
        crop_layers: Also ask about parts of the image: 4 in the first layer, 16 in the second, ...
        crop_overlap: Of neighbouring parts in the first layer, as a share of the image's shorter side.
        max_crop_overlap: Of the boxes of masks from different parts, as IoU; those of smaller parts are kept.
        crop_points_divisor: The grid of each layer has so many times fewer points a side than that of the one before.
        min_area: Holes and islands of fewer pixels are removed from masks.
    """

    points_per_side: int = 32
    points_at_once: int = 64
    min_score: float | None = None
    min_stability: float = 0.95
    stability_offset: float = 1.0
    max_overlap: float = 0.7
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    max_crop_overlap: float = 0.7
    crop_points_divisor: int = 1
    min_area: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.points_per_side, self.points_at_once, self.crop_points_divisor) < 1:
            raise ValueError("points_per_side, points_at_once and crop_points_divisor are at least 1.")
        if not 0 <= self.crop_layers <= 4 or self.min_area < 0:
            raise ValueError(f"crop_layers is {self.crop_layers}, from 0 to 4; min_area {self.min_area}, at least 0.")
        for name in ("max_overlap", "max_crop_overlap", "crop_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1.")

    def points(self, layer: int) -> Float[np.ndarray, "n 2"]:
        """Returns the grid of a layer: (x, y) as shares of the part's width and height, row by row."""
        side = int(self.points_per_side / self.crop_points_divisor**layer)
        middles = (np.arange(side) + 0.5) / max(1, side)
        return np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)

    def crops(self, height: int, width: int) -> list["Crop"]:
        """Returns the parts of an image that are asked about: the image itself, then layer by layer."""
        found = [Crop(0, 0, width, height, 0)]
        for layer in range(1, self.crop_layers + 1):
            count = 2**layer
            overlap = int(self.crop_overlap * min(height, width) * (2 / count))
            across, down = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
            for left in (int((across - overlap) * place) for place in range(count)):
                for top in (int((down - overlap) * place) for place in range(count)):
                    right, bottom = min(left + across, width), min(top + down, height)
                    found.append(Crop(left, top, right, bottom, layer))
        return found


class Crop(NamedTuple):
    """A part of an image, in pixels; `layer` 0 is the whole."""

    left: int
    top: int
    right: int
    bottom: int
    layer: int


class _Found(NamedTuple):
    """Masks of one part of an image, in pixels of the image.

    Attributes:
        masks: As runs.
        boxes: (n, 4) x1, y1, x2, y2; the last column and row are inside.
        scores: (n,) predicted IoU.
        stability: (n,).
        points: (n, 2) x, y of the prompts.
    """

    masks: list[RLE]
    boxes: Tensor
    scores: Tensor
    stability: Tensor
    points: Tensor

    def keep(self, places: Tensor) -> "_Found":
        chosen = places.tolist()
        masks = [self.masks[place] for place in chosen]
        return _Found(masks, *(value[places] for value in self[1:]))


class Picture(NamedTuple):
    """A part of an image as the model sees it.

    Attributes:
        images: (1, c, H, W), filled up with zeros right and below.
        size: (h, w) of the picture in it.
    """

    images: Tensor
    size: tuple[int, int]


def segment_everything(model: Segmenter, picture_of: Any, size: tuple[int, int], settings: Everything) -> list[Segment]:
    """Returns the masks of everything in an image of `size` (height, width), the surest first.

    Args:
        model: In evaluation mode.
        picture_of: Called with a `Crop`; returns the `Picture` of that part.
        size: Of the image as given.
        settings: See `Everything`.
    """
    height, width = size
    layers = []
    crops = settings.crops(height, width)
    for crop in crops:
        found = _in_crop(model, picture_of(crop), crop, size, settings)
        layers.append((crop, found))
    merged = _join([found for _, found in layers])
    if len(crops) > 1 and len(merged.masks):
        areas = torch.cat([torch.full((len(found.masks),), 1 / _area(crop)) for crop, found in layers])
        merged = merged.keep(nms(merged.boxes, areas, settings.max_crop_overlap))
    if settings.min_area and len(merged.masks):
        merged = _without_small_regions(merged, settings)
    rows = zip(merged.masks, merged.scores.tolist(), merged.points.tolist(), merged.stability.tolist())
    return [
        Segment(mask, score, number, (point[0], point[1]), stability)
        for number, (mask, score, point, stability) in enumerate(rows)
    ]


def _area(crop: Crop) -> int:
    return (crop.right - crop.left) * (crop.bottom - crop.top)


def _join(parts: list[_Found]) -> _Found:
    masks = [mask for part in parts for mask in part.masks]
    return _Found(masks, *(torch.cat(values) for values in zip(*(part[1:] for part in parts))))


def _in_crop(model: Segmenter, picture: Picture, crop: Crop, size: tuple[int, int], settings: Everything) -> _Found:
    """The masks of a part, none of which covers another, in pixels of the image."""
    sides = crop.bottom - crop.top, crop.right - crop.left
    embedding = model.encode(picture.images)
    points = torch.from_numpy(settings.points(crop.layer) * np.array(sides[::-1]))
    batches = points.split(settings.points_at_once)
    answers = [_answers(model, embedding, batch, picture, crop, size, settings) for batch in batches]
    found = _join([*answers, _nothing()])
    return found.keep(nms(found.boxes, found.scores, settings.max_overlap))


def _nothing() -> _Found:
    return _Found([], torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), torch.zeros(0, 2, dtype=torch.float64))


def _answers(
    model: Segmenter,
    embedding: Any,
    points: Tensor,
    picture: Picture,
    crop: Crop,
    size: tuple[int, int],
    settings: Everything,
) -> _Found:
    """The good answers to some points (x, y) in pixels of the part."""
    sides = crop.bottom - crop.top, crop.right - crop.left
    scale = points.new_tensor([picture.size[1] / sides[1], picture.size[0] / sides[0]])
    asked = (points * scale).to(weights_like(model))[None, :, None]
    answer = model.decode(embedding, Prompts(asked, torch.ones(asked.shape[:-1], device=asked.device).long()))
    low, scores = answer["low_res_masks"][0].flatten(0, 1), answer["iou_scores"][0].flatten()
    places = points.repeat_interleave(len(scores) // len(points), dim=0)
    sure = (scores > (model.sure_score if settings.min_score is None else settings.min_score)).nonzero()[:, 0]
    steps = (picture.images.shape[-2:], picture.size) if model.fills_up else None
    logits = at_size(low[sure], steps, sides)
    stability = _stability(logits, settings.stability_offset)
    stable = (stability >= settings.min_stability).nonzero()[:, 0]
    masks = (logits[stable] > 0).cpu()
    boxes, chosen = _boxes(masks), sure[stable].cpu()
    whole = _not_cut(boxes, crop, size)
    shift = torch.tensor([crop.left, crop.top])
    return _Found(
        [_uncropped(mask, crop, size) for mask in masks[whole].numpy()],
        boxes[whole] + shift.repeat(2),
        scores.float().cpu()[chosen][whole],
        stability.float().cpu()[stable.cpu()][whole],
        places[chosen][whole] + shift,
    )


def at_size(
    low: Float[Tensor, "n low_h low_w"], steps: tuple[Any, tuple[int, int]] | None, size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Returns low-resolution logits at the size of the image as given, as the authors enlarge them, bilinearly.

    Args:
        low: Of the picture as the model sees it.
        steps: (height, width) of a picture that was filled up, and of what it shows in it, which is cut out on the way;
            None where the picture fills all.
        size: (height, width) of the image as given.
    """
    if not len(low):
        return low.new_zeros(0, *size)
    large = low[None]
    if steps is not None:
        padded, inside = steps
        large = torch.nn.functional.interpolate(large, tuple(padded), mode="bilinear", align_corners=False)
        large = large[..., : inside[0], : inside[1]]
    return torch.nn.functional.interpolate(large, size, mode="bilinear", align_corners=False)[0]


def _stability(logits: Float[Tensor, "n h w"], offset: float) -> Float[Tensor, " n"]:
    """IoU of the masks with logits above `offset` and above minus that; NaN where both are empty."""
    inner, outer = ((logits > threshold).flatten(1).sum(dim=1) for threshold in (offset, -offset))
    return inner / outer


def _boxes(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """Boxes whose last column and row are inside; zeros of empty masks."""
    spans = []
    for kept in (masks.any(dim=1), masks.any(dim=2)):
        places = torch.arange(kept.shape[1])
        last = torch.where(kept, places, -1).amax(dim=1)
        first = torch.where(kept, places, kept.shape[1]).amin(dim=1)
        spans.append((first, last))
    (left, right), (top, bottom) = spans
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return torch.where((right >= 0)[:, None], boxes, 0).float()


def _not_cut(boxes: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Which boxes, in pixels of a part, come near none of its edges that is not the image's."""
    shift = torch.tensor([crop.left, crop.top, crop.left, crop.top])
    height, width = size
    edges = torch.tensor([crop.left, crop.top, crop.right, crop.bottom])
    near_crop = ((boxes + shift) - edges).abs() <= EDGE
    near_image = ((boxes + shift) - torch.tensor([0, 0, width, height])).abs() <= EDGE
    return ~(near_crop & ~near_image).any(dim=1)


def _uncropped(mask: Bool[np.ndarray, "_ _"], crop: Crop, size: tuple[int, int]) -> RLE:
    if mask.shape == size:
        return encode(mask)
    whole = np.zeros(size, dtype=bool)
    whole[crop.top : crop.bottom, crop.left : crop.right] = mask
    return encode(whole)


def _without_small_regions(found: _Found, settings: Everything) -> _Found:
    """Masks without small holes and islands; those that were changed yield to those that were not."""
    masks, unchanged = [], []
    for mask in found.masks:
        tidy, changed = remove_small_regions(mask.decode(), settings.min_area)
        masks.append(tidy)
        unchanged.append(float(not changed))
    boxes = _boxes(torch.from_numpy(np.stack(masks)))
    kept = nms(boxes, torch.tensor(unchanged), max(settings.max_overlap, settings.max_crop_overlap))
    return found._replace(masks=[encode(mask) for mask in masks], boxes=boxes).keep(kept)


def remove_small_regions(mask: Bool[np.ndarray, "h w"], area: int) -> tuple[Bool[np.ndarray, "h w"], bool]:
    """Returns a mask whose holes, then islands, of fewer pixels than `area` are gone, and whether there were any.

    Pixels that touch at a corner belong together. Where all islands are small, the largest stays.
    """
    filled, holes = _regions(~mask, area, keep_largest=False)
    filled = ~filled
    tidy, islands = _regions(filled, area, keep_largest=True)
    return tidy, holes or islands


def _regions(mask: Bool[np.ndarray, "h w"], area: int, *, keep_largest: bool) -> tuple[Bool[np.ndarray, "h w"], bool]:
    from scipy import ndimage

    numbers, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    sizes[0] = 0
    small = (sizes < area) & (np.arange(count + 1) > 0)
    if not small.any():
        return mask, False
    kept = ~small
    kept[0] = False
    if keep_largest and not kept.any():
        kept[sizes.argmax()] = True
    return kept[numbers], True
