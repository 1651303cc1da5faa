"""Kernels that NumPy, JAX and MLX share, written over the names their array modules have in common.

`xp` stands for `np`, `jnp` or `mx` and is replaced when a source is pasted into a generated module.
"""

import itertools
import math

import numpy as xp


def channels(values, input):
    """One value per channel, beside `input` (n, c, *spatial)."""
    return values.reshape(-1, *(1,) * (input.ndim - 2))


# Normalization


def layer_norm(input, weight=None, bias=None, dims=1, eps=1e-5):
    """Normalize over the last `dims` axes."""
    axes = tuple(range(-dims, 0))
    center = input - xp.mean(input, axis=axes, keepdims=True)
    output = center / xp.sqrt(xp.mean(xp.square(center), axis=axes, keepdims=True) + eps)
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def rms_norm(input, weight=None, eps=1e-6):
    """Divide by the root of the mean square over the last axis."""
    output = input / xp.sqrt(xp.mean(xp.square(input), axis=-1, keepdims=True) + eps)
    return output if weight is None else output * weight


def group_norm(input, weight=None, bias=None, num_groups=1, eps=1e-5):
    """Normalize each group of channels of (n, c, *spatial)."""
    output = layer_norm(input.reshape(input.shape[0], num_groups, -1), eps=eps).reshape(input.shape)
    output = output if weight is None else output * channels(weight, input)
    return output if bias is None else output + channels(bias, input)


def batch_norm(input, mean, var, weight=None, bias=None, eps=1e-5):
    """Normalize the channels of (n, c, *spatial) with given statistics, as one scale and one shift."""
    scale = (1 if weight is None else weight) / xp.sqrt(var + eps)
    shift = (0 if bias is None else bias) - mean * scale
    wide = (-1, *(1,) * (input.ndim - 2))
    return input * scale.reshape(wide) + shift.reshape(wide)


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


def attention_weights(query, key, mask, is_causal, scale):
    """softmax(q k^T * scale + mask). A bool mask is True where a query may look; one that sees nothing has zeros."""
    scores = query @ xp.swapaxes(key, -1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        mask = xp.tril(xp.ones(scores.shape[-2:], dtype=xp.int32)) > 0
    if mask is not None:
        scores = xp.where(mask, scores, -math.inf) if "bool" in str(mask.dtype) else scores + mask
    peak = fixed(xp.max(scores, axis=-1, keepdims=True))  # its gradients cancel
    weights = xp.exp(scores - xp.where(peak == -math.inf, 0, peak))
    total = xp.sum(weights, axis=-1, keepdims=True)
    return weights / xp.where(total == 0, 1, total)


def scaled_dot_product_attention(query, key, value, mask=None, is_causal=False, scale=None):
    """softmax(q k^T * scale + mask) v."""
    return attention_weights(query, key, mask, is_causal, scale) @ value


def cross_entropy(input, target, label_smoothing=0.0, ignore_index=-100, weight=None):
    """Loss per place: -log of the probability of class `target` along axis 1 of the logits, times its weight."""
    peak = fixed(xp.max(input, axis=1, keepdims=True))  # its gradients cancel
    logs = input - peak - xp.log(xp.sum(xp.exp(input - peak), axis=1, keepdims=True))
    logs = logs if weight is None else logs * channels(xp.array(weight, dtype=input.dtype), input)
    known = target != ignore_index
    index = xp.expand_dims(xp.where(known, target, 0), 1)
    loss = -xp.take_along_axis(logs, held(index, logs.shape[1]), axis=1).squeeze(1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * xp.mean(logs, axis=1)
    return xp.where(known, loss, 0)


def apart(values):
    """Values of which zeros have no gradient, for functions that are steep there."""
    return xp.where(values == 0, fixed(values), values)


def magnitude(input):
    """|input|, whose gradient at 0 is 0."""
    return xp.abs(input)


def std(input, axis=None, keepdims=False, correction=0):
    """Standard deviation; that of equal values has no gradient."""
    return xp.sqrt(apart(xp.var(input, axis=axis, keepdims=keepdims, ddof=correction)))


def vector_norm(input, axis=None, keepdims=False, ord=2):
    """The `ord`-norm of vectors along `axis`; zeros have no gradient."""
    size = magnitude(input)
    if ord == 0:
        return xp.sum(size != 0, axis=axis, keepdims=keepdims).astype(input.dtype)
    if abs(ord) == math.inf:
        return (xp.max if ord > 0 else xp.min)(size, axis=axis, keepdims=keepdims)
    if ord == 1:
        return xp.sum(size, axis=axis, keepdims=keepdims)
    if ord == 2:
        return xp.sqrt(apart(xp.sum(xp.square(input), axis=axis, keepdims=keepdims)))
    return apart(xp.sum(apart(size) ** ord, axis=axis, keepdims=keepdims)) ** (1 / ord)


def clip(input, min=None, max=None):
    """Values held between bounds; the gradient passes at the bounds."""
    input = input if min is None else xp.where(input < min, min, input)
    return input if max is None else xp.where(input > max, max, input)


def power(left, right):
    """left ** right; an exponent of 0 leaves the base without a gradient."""
    return xp.where(right == 0, fixed(left), left) ** right


def arctan2(left, right):
    """The angle of (right, left); the origin has no gradient."""
    origin = (left == 0) & (right == 0)
    return xp.arctan2(xp.where(origin, fixed(left), left), xp.where(origin, fixed(right), right))


def first_largest(values, axis, keepdims=False):
    """The largest value along `axis`; the first of equal ones has the gradient."""
    found = xp.take_along_axis(values, fixed(xp.expand_dims(xp.argmax(values, axis=axis), axis)), axis=axis)
    return found if keepdims else found.squeeze(axis)


def pixel_shuffle(input, factor):
    """(n, c * f * f, h, w) to (n, c, h * f, w * f)."""
    n, c, h, w = input.shape
    parts = input.reshape(n, c // factor**2, factor, factor, h, w)
    return xp.transpose(parts, (0, 1, 4, 2, 5, 3)).reshape(n, c // factor**2, h * factor, w * factor)


# Convolution and pooling


def windows(input, kernel, stride, dilation):
    """All windows of (n, c, *spatial) in one stack, (n, c, k, *out)."""
    last = [(size - d * (k - 1) - 1) // s for size, k, s, d in zip(input.shape[2:], kernel, stride, dilation)]
    offsets = itertools.product(*(range(0, k * d, d) for k, d in zip(kernel, dilation)))
    places = [[slice(at, at + n * s + 1, s) for at, n, s in zip(offset, last, stride)] for offset in offsets]
    return xp.stack([input[(..., *place)] for place in places], axis=2)


def turned(weight, groups):
    """The weight (c, o / groups, *kernel) of a transposed convolution as (o, c / groups, *kernel)."""
    parts = xp.swapaxes(weight.reshape(groups, -1, *weight.shape[1:]), 1, 2)
    return parts.reshape(-1, *parts.shape[2:])


def bins(size, count):
    """Start and end of each of `count` bins that cover `size` places, as adaptive pooling cuts them."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_pool(reduce, input, output_size):
    """`reduce` over the bins of each spatial axis of (n, c, *spatial) in turn."""
    for axis, count in enumerate(output_size, 2):
        if count != input.shape[axis]:
            places = [(*(slice(None),) * axis, slice(*ends)) for ends in bins(input.shape[axis], count)]
            input = xp.concatenate([reduce(input[place], axis=axis, keepdims=True) for place in places], axis=axis)
    return input


def adaptive_max(input, output_size):
    """The largest value of each bin; the first of equal ones has the gradient."""
    return adaptive_pool(lambda part, **where: first_largest(part, **where), input, output_size)


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


def per_axis(value, rank):
    """One value per spatial axis."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def interpolate(input, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Resize the spatial axes of (n, c, *spatial), one matrix product per axis."""
    sizes, factors = per_axis(size, input.ndim - 2), per_axis(scale_factor, input.ndim - 2)
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


def fixed(values):
    """Values that have no gradient; JAX and MLX want to be told."""
    return values


def grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False):
    """Values of (n, c, h, w) at the places (n, y, x, 2) of `grid`, given as (x, y) from -1 to 1."""
    n, c, h, w = input.shape
    pixels = xp.moveaxis(input.reshape(n, c, h * w), 1, -1)
    images = xp.arange(n).reshape(n, 1, 1)
    corners = grid_corners(input.shape, grid, mode, padding_mode, align_corners)
    parts = [pixels[images, fixed(index)] * weight[..., None] for index, weight in corners]
    return xp.moveaxis(sum(parts[1:], parts[0]), -1, 1)


# Indexing and random numbers


def placed(index, axis):
    """Indices of every place that `index` names along `axis`."""
    shape = index.shape
    places = [xp.arange(n).reshape([-1 if a == b else 1 for b in range(len(shape))]) for a, n in enumerate(shape)]
    places[axis] = index
    return tuple(places)


def held(index, size):
    """Indices of an axis as they are: the framework refuses those outside of it, or holds them to it."""
    return index


def leading(updates, index):
    """The part of `updates` that has a place in `index`."""
    return updates[tuple(map(slice, index.shape))]


def slice_scatter(input, source, key):
    """`input` with the part `key` replaced by `source`."""
    output = xp.array(input)
    output[key] = source
    return output


def topk(input, k, axis=-1, largest=True):
    """The `k` largest (or smallest) values along `axis`, in order, and their indices."""
    indices = xp.take(argsort(input, axis, largest), xp.arange(k), axis=axis)
    return xp.take_along_axis(input, indices, axis=axis), indices


def dropout(input, key, rate=0.5, training=True):
    """`input` with a share `rate` of its values zeroed and the rest scaled up; `key` decides which."""
    return xp.where(uniform(key, input.shape) >= rate, input / (1 - rate), 0)


# What each backend has of its own


def argsort(input, axis=-1, descending=False):
    """Indices that sort `input` along `axis`."""
    raise NotImplementedError


def uniform(key, shape):
    """Numbers from 0 to 1 for a random key (2,) int32."""
    raise NotImplementedError
