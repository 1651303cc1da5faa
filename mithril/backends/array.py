"""Kernels that NumPy, JAX and MLX share, written over the names their array modules have in common.

`xp` stands for `np`, `jnp` or `mx` and is replaced when a source is pasted into a generated module.
"""

import math

import numpy as xp

from mithril.ops.table import kernel

ALL = "numpy jax mlx"


def per_axis(value, rank):
    """One value per spatial axis."""
    return (value,) * rank if isinstance(value, int | float) else tuple(value)


# Normalization


@kernel("layer_norm", "numpy jax")
def layer_norm(input, weight=None, bias=None, dims=1, eps=1e-5):
    """Normalize over the last `dims` axes."""
    axes = tuple(range(-dims, 0))
    center = input - xp.mean(input, axis=axes, keepdims=True)
    output = center / xp.sqrt(xp.mean(xp.square(center), axis=axes, keepdims=True) + eps)
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


@kernel("rms_norm", "numpy jax")
def rms_norm(input, weight=None, eps=1e-6):
    """Divide by the root of the mean square over the last axis."""
    output = input / xp.sqrt(xp.mean(xp.square(input), axis=-1, keepdims=True) + eps)
    return output if weight is None else output * weight


@kernel("group_norm", ALL)
def group_norm(input, weight=None, bias=None, num_groups=1, eps=1e-5):
    """Normalize each group of channels of (n, c, *spatial)."""
    rows = input.reshape(input.shape[0], num_groups, -1)
    center = rows - xp.mean(rows, axis=-1, keepdims=True)
    rows = center / xp.sqrt(xp.mean(xp.square(center), axis=-1, keepdims=True) + eps)
    output = rows.reshape(input.shape)
    wide = (-1, *(1,) * (input.ndim - 2))
    output = output if weight is None else output * weight.reshape(wide)
    return output if bias is None else output + bias.reshape(wide)


@kernel("batch_norm", ALL)
def batch_norm(input, mean, var, weight=None, bias=None, eps=1e-5):
    """Normalize the channels of (n, c, *spatial) with given statistics, as one scale and one shift."""
    scale = 1 / xp.sqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    wide = (-1, *(1,) * (input.ndim - 2))
    return input * scale.reshape(wide) + shift.reshape(wide)


@kernel("batch_norm_training", ALL)
def batch_norm_training(input, mean, var, weight=None, bias=None, momentum=0.1, eps=1e-5):
    """Normalize with the batch's statistics; the running ones move towards them (the variance without bias)."""
    rows = (0, *range(2, input.ndim))
    batch_mean, batch_var = xp.mean(input, axis=rows), xp.var(input, axis=rows)
    output = batch_norm(input, batch_mean, batch_var, weight, bias, eps)
    count = math.prod(input.shape) // input.shape[1]
    new_mean = mean + momentum * (batch_mean - mean)
    new_var = var + momentum * (batch_var * (count / max(count - 1, 1)) - var)
    return output, new_mean, new_var


# Attention and loss


@kernel("scaled_dot_product_attention", "numpy jax")
def scaled_dot_product_attention(query, key, value, mask=None, is_causal=False, scale=None):
    """softmax(q k^T * scale + mask) v. A bool mask is True where a query may look; one that sees nothing gives 0."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ xp.swapaxes(key, -1, -2)
    if is_causal:
        mask = xp.tril(xp.ones(scores.shape[-2:], dtype=xp.int32)) > 0
    if mask is not None:
        scores = xp.where(mask, scores, -math.inf) if "bool" in str(mask.dtype) else scores + mask
    peak = xp.max(scores, axis=-1, keepdims=True)
    if mask is not None:
        peak = xp.where(peak == -math.inf, 0, peak)
    weights = xp.exp(scores - peak)
    total = xp.sum(weights, axis=-1, keepdims=True)
    if mask is not None:
        total = xp.where(total == 0, 1, total)
    return (weights / total) @ value


@kernel("cross_entropy", ALL)
def cross_entropy(input, target, label_smoothing=0.0, ignore_index=-100):
    """Loss per place: -log of the probability of class `target` along axis 1 of the logits."""
    peak = xp.max(input, axis=1, keepdims=True)
    logs = input - peak - xp.log(xp.sum(xp.exp(input - peak), axis=1, keepdims=True))
    known = target != ignore_index
    index = xp.expand_dims(xp.where(known, target, 0), 1)
    loss = -xp.take_along_axis(logs, index, axis=1).squeeze(1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * xp.mean(logs, axis=1)
    return xp.where(known, loss, 0)


@kernel("norm", ALL)
def vector_norm(input, axis=None, keepdims=False, ord=2):
    """The `ord`-norm of vectors along `axis`."""
    size = xp.abs(input)
    if ord == math.inf:
        return xp.max(size, axis=axis, keepdims=keepdims)
    if ord == 1:
        return xp.sum(size, axis=axis, keepdims=keepdims)
    if ord == 2:
        return xp.sqrt(xp.sum(xp.square(size), axis=axis, keepdims=keepdims))
    return xp.sum(size**ord, axis=axis, keepdims=keepdims) ** (1 / ord)


@kernel("prelu", ALL)
def prelu(input, weight):
    """`input` where positive, else times its channel's weight."""
    slope = weight.reshape(-1, *(1,) * (input.ndim - 2))
    return xp.where(input > 0, input, slope * input)


@kernel("pixel_shuffle", ALL)
def pixel_shuffle(input, factor):
    """(..., c * f * f, h, w) to (..., c, h * f, w * f)."""
    *lead, c, h, w = input.shape
    count = len(lead)
    parts = input.reshape(*lead, c // factor**2, factor, factor, h, w)
    order = (*range(count + 1), count + 3, count + 1, count + 4, count + 2)
    return xp.transpose(parts, order).reshape(*lead, c // factor**2, h * factor, w * factor)


# Pooling, one axis after the other: maxima and sums over a window are separable


def pool_plan(shape, kernel_size, stride, padding, dilation, ceil_mode):
    """Per spatial axis: kernel, stride, padding before, padding after, dilation, number of windows.

    With `ceil_mode` one more window may hang over the end, if it starts inside the input or the left padding.
    """
    rank = len(shape) - 2
    kernel = per_axis(kernel_size, rank)
    strides = kernel if stride is None else per_axis(stride, rank)
    plan = []
    settings = zip(shape[2:], kernel, strides, per_axis(padding, rank), per_axis(dilation, rank))
    for size, k, s, p, d in settings:
        room = size + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= size + p:
            count -= 1
        after = max(p, (count - 1) * s + d * (k - 1) + 1 - size - p)
        plan.append((k, s, p, after, d, count))
    return plan


def slide(combine, input, axis, kernel, stride, dilation, count):
    """`combine` over the windows of one axis."""
    output = None
    for offset in range(0, kernel * dilation, dilation):
        place = slice(offset, offset + stride * (count - 1) + 1, stride)
        part = input[(*(slice(None),) * axis, place)]
        output = part if output is None else combine(output, part)
    return output


@kernel("max_pool1d max_pool2d max_pool3d", "numpy mlx")
def max_pool(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Largest value of each window of (n, c, *spatial)."""
    plan = pool_plan(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    margin = [(0, 0), (0, 0), *((before, after) for _, _, before, after, _, _ in plan)]
    if any(before or after for before, after in margin):
        input = xp.pad(input, margin, constant_values=-math.inf)
    for axis, (k, s, _, _, d, count) in reversed(list(enumerate(plan, 2))):
        input = slide(xp.maximum, input, axis, k, s, d, count)
    return input


@kernel("avg_pool1d avg_pool2d avg_pool3d", "numpy mlx")
def avg_pool(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean of each window of (n, c, *spatial)."""
    plan = pool_plan(input.shape, kernel_size, stride, padding, 1, ceil_mode)
    margin = [(0, 0), (0, 0), *((before, after) for _, _, before, after, _, _ in plan)]
    output = xp.pad(input, margin) if any(before or after for before, after in margin) else input
    for axis, (k, s, p, _, _, count) in enumerate(plan, 2):
        size = input.shape[axis]
        output = slide(xp.add, output, axis, k, s, 1, count)
        members = pool_members(size, k, s, p, count, count_include_pad)
        if members == [k] * count:
            output = output / k
        else:
            divisor = xp.array(members, dtype=input.dtype)
            output = output / divisor.reshape(-1, *(1,) * (input.ndim - 1 - axis))
    return output


def pool_members(size, kernel, stride, padding, count, count_include_pad):
    """How many places of each window along one axis are counted."""
    low, high = (-padding, size + padding) if count_include_pad else (0, size)
    starts = [i * stride - padding for i in range(count)]
    return [min(start + kernel, high) - max(start, low) for start in starts]


def bins(size, count):
    """Start and end of each of `count` bins that cover `size` places, as adaptive pooling cuts them."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_pool(reduce, input, output_size):
    """`reduce` over the bins of each spatial axis in turn."""
    rank = input.ndim - 2
    wanted = (output_size,) * rank if isinstance(output_size, int) else output_size
    for axis, count in enumerate(wanted, 2):
        if count is not None and count != input.shape[axis]:
            lead = (slice(None),) * axis
            parts = [input[(*lead, slice(a, b))] for a, b in bins(input.shape[axis], count)]
            input = xp.concatenate([reduce(part, axis=axis, keepdims=True) for part in parts], axis=axis)
    return input


@kernel("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", ALL)
def adaptive_avg_pool(input, output_size):
    """Means over `output_size` bins per axis of (n, c, *spatial)."""
    return adaptive_pool(xp.mean, input, output_size)


@kernel("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d", ALL)
def adaptive_max_pool(input, output_size):
    """Maxima over `output_size` bins per axis of (n, c, *spatial)."""
    return adaptive_pool(xp.max, input, output_size)


# Resampling


def resampling(size, count, factor, mode, align_corners, dtype):
    """The matrix (count, size) that resamples one axis; `factor` is the scale if it was given, else None."""
    places = xp.arange(count).astype(dtype)
    nearest = mode.startswith("nearest")
    if align_corners and not nearest:
        places = places * ((size - 1) / max(count - 1, 1))
    elif nearest:
        middle = 0.5 if mode == "nearest-exact" else 0
        places = xp.floor((places + middle) * (size / count if factor is None else 1 / factor))
    else:
        places = (places + 0.5) * (size / count if factor is None else 1 / factor) - 0.5
        places = places if mode == "bicubic" else xp.maximum(places, 0)
    low = xp.floor(places)
    part = places - low
    if nearest:
        taps = [(0, xp.ones(count, dtype=dtype))]
    elif mode != "bicubic":
        taps = [(0, 1 - part), (1, part)]
    else:
        taps = [(i, cubic(xp.abs(part - i))) for i in (-1, 0, 1, 2)]
    columns = xp.arange(size).astype(dtype)
    matrix = xp.zeros((count, size), dtype=dtype)
    for offset, weight in taps:
        index = xp.clip(low + offset, 0, size - 1)
        matrix = matrix + xp.where(index[:, None] == columns, weight[:, None], 0)
    return matrix


def cubic(x):
    """Keys' cubic convolution with a = -0.75, as in torch and OpenCV."""
    near = (1.25 * x - 2.25) * x * x + 1
    far = ((-0.75 * x + 3.75) * x - 6) * x + 3
    return xp.where(x <= 1, near, xp.where(x < 2, far, 0))


@kernel("interpolate", ALL)
def interpolate(input, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Resize the spatial axes of (n, c, *spatial), one matrix product per axis."""
    rank = input.ndim - 2
    factors = (None,) * rank if scale_factor is None else per_axis(scale_factor, rank)
    sizes = (None,) * rank if size is None else per_axis(size, rank)
    for axis, (count, factor) in enumerate(zip(sizes, factors), 2):
        have = input.shape[axis]
        count = int(have * factor) if count is None else count
        if count != have or factor is not None:
            matrix = resampling(have, count, factor, mode, align_corners, input.dtype)
            input = xp.moveaxis(xp.moveaxis(input, axis, -1) @ matrix.T, -1, axis)
    return input


def sampled_places(grid, size, align_corners):
    """Coordinates from -1 to 1 as places on an axis of `size`."""
    return (grid + 1) / 2 * (size - 1) if align_corners else ((grid + 1) * size - 1) / 2


def bounded(places, size, padding_mode, align_corners):
    """Places beyond an axis brought back to it; with zeros around it, they stay where they are."""
    if padding_mode == "border":
        return xp.clip(places, 0, size - 1)
    if padding_mode == "reflection":
        low, span = (0, size - 1) if align_corners else (-0.5, size)
        turn = xp.remainder(places - low, max(2 * span, 1))
        return xp.clip(xp.minimum(turn, 2 * span - turn) + low, 0, size - 1)
    return places


def grid_taps(grid, size, mode, padding_mode, align_corners):
    """The pixels along one axis that each place of `grid` is read from: their places and weights."""
    places = sampled_places(grid, size, align_corners)
    if mode == "bicubic":
        low = xp.floor(places)
        taps = [(low + i, cubic(xp.abs(places - low - i))) for i in (-1, 0, 1, 2)]
        return [(bounded(place, size, padding_mode, align_corners), weight) for place, weight in taps]
    places = bounded(places, size, padding_mode, align_corners)
    if mode == "nearest":
        return [(xp.round(places), xp.ones(places.shape, dtype=grid.dtype))]
    low = xp.floor(places)
    return [(low, 1 - (places - low)), (low + 1, places - low)]


def grid_corners(shape, grid, mode, padding_mode, align_corners):
    """For each pixel around the places of `grid`: its index in the flattened image, and its weight."""
    h, w = shape[-2:]
    found = []
    for row, by_row in grid_taps(grid[..., 1], h, mode, padding_mode, align_corners):
        for column, by_column in grid_taps(grid[..., 0], w, mode, padding_mode, align_corners):
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            index = xp.clip(row, 0, h - 1) * w + xp.clip(column, 0, w - 1)
            found.append((index.astype(xp.int32), xp.where(inside, by_row * by_column, 0)))
    return found


@kernel("grid_sample", "numpy jax")
def grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False):
    """Values of (n, c, h, w) at the places (n, y, x, 2) of `grid`, given as (x, y) from -1 to 1."""
    n, c, h, w = input.shape
    pixels = xp.moveaxis(input.reshape(n, c, h * w), 1, -1)
    images = xp.arange(n).reshape(n, 1, 1)
    corners = grid_corners(input.shape, grid, mode, padding_mode, align_corners)
    output = xp.zeros((*grid.shape[:-1], c), dtype=input.dtype)
    for index, weight in corners:
        output = output + pixels[images, index] * weight[..., None]
    return xp.moveaxis(output, -1, 1)


# Indexing


def placed(index, axis):
    """Indices of every place that `index` names along `axis`."""
    shape = index.shape
    places = [xp.arange(n).reshape([-1 if a == b else 1 for b in range(len(shape))]) for a, n in enumerate(shape)]
    places[axis] = index
    return tuple(places)


@kernel("take_along_axis", ALL)
def take_along_axis(input, index, axis=0):
    """Values at `index` along `axis`; other axes of `index` may be shorter."""
    return input[placed(index, axis)]


@kernel("scatter_add", "jax mlx")
def scatter_add(input, index, updates, axis=0):
    """`input` with `updates` added at `index` along `axis`; repeated indices add up."""
    return input.at[placed(index, axis)].add(updates[tuple(map(slice, index.shape))])
