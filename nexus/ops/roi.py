"""Pooling of regions of a feature map to a fixed size.

RoI Align: He et al., "Mask R-CNN", 2017, Sec. 3. https://arxiv.org/abs/1703.06870
RoI Pool: Girshick, "Fast R-CNN", 2015, Sec. 2.1. https://arxiv.org/abs/1504.08083

Dims: b images, c channels, h w pixels of the map, n regions, p q pooled height and width, s samples of a bin's axis.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nexus.ops.compiled import compiled_ops
from nexus.ops.sampling import weighted_rows

CHUNK = 1 << 21
"""Samples that are prepared at once; bounds the memory of many or large regions."""


def roi_align(
    features: Float[Tensor, "b c h w"],
    boxes: Float[Tensor, "n 4"],
    image_index: Int[Tensor, " n"],
    output_size: tuple[int, int],
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Tensor, "n c p q"]:
    """Averages bilinear samples in each bin of each region; differentiable in `features`.

    Args:
        features: Maps of the batch.
        boxes: Corners in pixels of the image.
        image_index: Which image of the batch a box belongs to.
        output_size: Bins per region, (height, width).
        spatial_scale: Pixels of the map per pixel of the image, 1 / stride.
        sampling_ratio: Samples per bin and axis; 0 takes one for each pixel of the map that a bin spans.
        aligned: Pixel centres are at half positions. False keeps the half-pixel shift, and the least size of one
            pixel, of the paper's first code, with which torchvision's detectors were trained.

    Raises:
        ValueError: The shapes do not agree, or the output size is empty.
    """
    _check(features, boxes, image_index, output_size)
    compiled = compiled_ops()
    if compiled is not None:
        regions = torch.cat([image_index[:, None].to(boxes), boxes], dim=1)
        maps = features.to(boxes.dtype)  # it takes one type only, and 16 bits are too few for boxes
        pooled = compiled.roi_align(maps, regions, spatial_scale, *output_size, sampling_ratio, aligned)
        return pooled.to(features.dtype)
    boxes = boxes.detach() * spatial_scale - (0.5 if aligned else 0.0)
    start, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    table = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    bins = size / size.new_tensor([output_size[1], output_size[0]])
    if sampling_ratio > 0:
        return _align(features, table, image_index, start, bins, output_size, (sampling_ratio, sampling_ratio))
    counts = bins.ceil().clamp(min=0).long()
    pooled = features.new_zeros(len(boxes), features.shape[1], *output_size)
    for across, down in torch.unique(counts[counts.all(1)], dim=0).tolist():  # a region without extent stays 0
        group = ((counts[:, 0] == across) & (counts[:, 1] == down)).nonzero()[:, 0]
        part = _align(features, table, image_index[group], start[group], bins[group], output_size, (down, across))
        pooled = pooled.index_put((group,), part)
    return pooled


def _align(
    features: Tensor,
    table: Tensor,
    image_index: Tensor,
    start: Tensor,
    bins: Tensor,
    output_size: tuple[int, int],
    samples: tuple[int, int],
) -> Tensor:
    """Pools regions that all have the same number of samples (down, across) in a bin."""
    height, width = features.shape[-2:]
    (p, q), (down, across) = output_size, samples
    per_region = 4 * p * q * down * across
    pooled = [features.new_zeros(0, p, q, features.shape[1])]
    for part in torch.arange(len(start), device=start.device).split(max(1, CHUNK // per_region)):
        y, wy = _axis_samples(start[part, 1], bins[part, 1], p, down, height)
        x, wx = _axis_samples(start[part, 0], bins[part, 0], q, across, width)
        first = image_index[part].long()[:, None, None, None, None] * (height * width)
        index = (first + y[:, :, None, :, None] * width + x[:, None, :, None, :]).flatten(3).flatten(0, 2)
        weight = (wy[:, :, None, :, None] * wx[:, None, :, None, :]).flatten(3).flatten(0, 2)
        pooled.append(weighted_rows(table, index, weight).unflatten(0, (len(part), p, q)))
    return torch.cat(pooled).permute(0, 3, 1, 2).contiguous()


def _axis_samples(
    start: Float[Tensor, " n"], step: Float[Tensor, " n"], num_bins: int, samples: int, size: int
) -> tuple[Int[Tensor, "n p s2"], Float[Tensor, "n p s2"]]:
    """Returns which pixels of one axis each bin reads, two per sample, and with which weight.

    A sample more than one pixel outside the map counts as 0; nearer ones read the border pixel.
    """
    place = (torch.arange(num_bins * samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    position = start[:, None] + place * step[:, None]
    outside = (position < -1) | (position > size)
    position = position.clamp(0, size - 1)
    low = position.floor()
    fraction = position - low
    pixels = torch.stack([low, (low + 1).clamp(max=size - 1)], dim=-1).long()
    weights = torch.stack([1 - fraction, fraction], dim=-1).masked_fill(outside[..., None], 0) / samples
    shape = (len(start), num_bins, 2 * samples)
    return pixels.reshape(shape), weights.reshape(shape)


def roi_pool(
    features: Float[Tensor, "b c h w"],
    boxes: Float[Tensor, "n 4"],
    image_index: Int[Tensor, " n"],
    output_size: tuple[int, int],
    *,
    spatial_scale: float = 1.0,
) -> Float[Tensor, "n c p q"]:
    """Takes the maximum in each bin of each region, whose borders are rounded to whole pixels; an empty bin is 0.

    Kept for the detectors of 2015; it goes region by region. See `roi_align` for the arguments.
    """
    _check(features, boxes, image_index, output_size)
    compiled = compiled_ops()
    if compiled is not None:
        regions = torch.cat([image_index[:, None].to(boxes), boxes], dim=1)
        return compiled.roi_pool(features.to(boxes.dtype), regions, spatial_scale, *output_size)[0].to(features.dtype)
    height, width = features.shape[-2:]
    corners = _round_half_away(boxes.detach() * spatial_scale)
    rows = _bin_ranges(corners[:, 1], corners[:, 3], output_size[0], height)
    columns = _bin_ranges(corners[:, 0], corners[:, 2], output_size[1], width)
    pooled = [
        _max_in_ranges(_max_in_ranges(features[image], down, axis=1), across, axis=2)
        for image, down, across in zip(image_index.tolist(), rows, columns)
    ]
    return torch.stack(pooled) if pooled else features.new_zeros(0, features.shape[1], *output_size)


def _round_half_away(values: Tensor) -> Tensor:
    """Rounds as C does: halves go away from zero (torch rounds them to even)."""
    return (values.abs() + 0.5).floor() * values.sign()


def _bin_ranges(low: Tensor, high: Tensor, num_bins: int, size: int) -> list[list[tuple[int, int]]]:
    step = (high - low + 1).clamp(min=1)[:, None] / num_bins
    place = torch.arange(num_bins, device=low.device, dtype=low.dtype)
    begin = (low[:, None] + (place * step).floor()).clamp(0, size).long().tolist()
    end = (low[:, None] + ((place + 1) * step).ceil()).clamp(0, size).long().tolist()
    return [list(zip(*region)) for region in zip(begin, end)]


def _max_in_ranges(maps: Tensor, ranges: list[tuple[int, int]], axis: int) -> Tensor:
    def largest(begin: int, end: int) -> Tensor:
        if end <= begin or not maps.shape[3 - axis]:
            return maps.select(axis, 0) * 0
        return maps.narrow(axis, begin, end - begin).max(axis).values

    return torch.stack([largest(begin, end) for begin, end in ranges], dim=axis)


def _check(features: Tensor, boxes: Tensor, image_index: Tensor, output_size: tuple[int, int]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or image_index.shape != boxes.shape[:1]:
        raise ValueError(
            f"boxes have the shape {tuple(boxes.shape)} and image_index {tuple(image_index.shape)}; "
            "they must be (n, 4) and (n,)."
        )
    if min(output_size) < 1 or min(features.shape[-2:]) < 1:
        raise ValueError(
            f"output_size is {output_size} on maps of {tuple(features.shape[-2:])} pixels; all must be at least 1."
        )
