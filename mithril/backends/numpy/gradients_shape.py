"""Vector-Jacobian products on NumPy for pooling, resampling, reductions, indexing and moving values around.

Called like those of `gradients.py`.
"""

import math

import numpy as np

from mithril.backends.array import (
    adaptive_pool,
    bins,
    bounded,
    grid_taps,
    per_axis,
    placed,
    pool_members,
    pool_plan,
    resampling,
    sampled_places,
)
from mithril.backends.numpy.gradients import unbroadcast
from mithril.backends.numpy.kernels import dropout
from mithril.ops.table import gradient_kernel

# Pooling


def axis_windows(axis, kernel, stride, dilation, count):
    """For each place in the kernel, what it reads of `axis` in all windows at once."""
    for offset in range(0, kernel * dilation, dilation):
        yield (*(slice(None),) * axis, slice(offset, offset + stride * (count - 1) + 1, stride))


@gradient_kernel("max_pool1d max_pool2d max_pool3d")
def max_pool_gradient(grad, input, output, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Gradient of `max_pool`: to the first largest value of each window."""
    plan = pool_plan(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    margin = [(0, 0), (0, 0), *((before, after) for _, _, before, after, _, _ in plan)]
    stages = [np.pad(input, margin, constant_values=-math.inf)]
    windows = [list(axis_windows(a, k, s, d, count)) for a, (k, s, _, _, d, count) in enumerate(plan, 2)][::-1]
    for places in windows:
        stages.append(np.max([stages[-1][place] for place in places], axis=0))
    for places, before, after in zip(windows[::-1], stages[-2::-1], stages[:0:-1]):
        wide, free = np.zeros_like(before), np.ones(after.shape, bool)
        for place in places:
            chosen = free & (before[place] == after)
            wide[place] += grad * chosen
            free &= ~chosen
        grad = wide
    return (grad[tuple(slice(b, b + size) for (b, _), size in zip(margin, input.shape))],)


@gradient_kernel("avg_pool1d avg_pool2d avg_pool3d")
def avg_pool_gradient(
    grad, input, output, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    """Gradient of `avg_pool`: the same share to every place of a window."""
    plan = pool_plan(input.shape, kernel_size, stride, padding, 1, ceil_mode)
    for axis, (k, s, before, after, _, count) in enumerate(plan, 2):
        size = input.shape[axis]
        members = np.array(pool_members(size, k, s, before, count, count_include_pad), dtype=grad.dtype)
        shared = grad / members.reshape(-1, *(1,) * (grad.ndim - 1 - axis))
        wide = np.zeros((*grad.shape[:axis], before + size + after, *grad.shape[axis + 1 :]), grad.dtype)
        for place in axis_windows(axis, k, s, 1, count):
            wide[place] += shared
        grad = wide[(*(slice(None),) * axis, slice(before, before + size))]
    return (grad,)


@gradient_kernel("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d")
def adaptive_avg_pool_gradient(grad, input, output, output_size):
    """Gradient of `adaptive_avg_pool`."""
    for axis in range(2, input.ndim):
        wide = np.zeros((*grad.shape[:axis], input.shape[axis], *grad.shape[axis + 1 :]), grad.dtype)
        lead = (slice(None),) * axis
        for i, (start, end) in enumerate(bins(input.shape[axis], grad.shape[axis])):
            wide[(*lead, slice(start, end))] += grad[(*lead, slice(i, i + 1))] / (end - start)
        grad = wide
    return (grad,)


@gradient_kernel("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
def adaptive_max_pool_gradient(grad, input, output, output_size):
    """Gradient of `adaptive_max_pool`: to the first largest value of each bin."""
    sizes = output.shape[2:]
    kept = [(None,) * i + tuple(sizes[i:]) for i in range(len(sizes) + 1)]
    stages = [
        adaptive_pool(np.max, input, tuple(s if s is not None else n for s, n in zip(k, input.shape[2:]))) for k in kept
    ]
    for axis in range(2, input.ndim):
        before, after = stages[axis - 1], stages[axis - 2]
        wide, lead = np.zeros_like(before), (slice(None),) * axis
        for i, (start, end) in enumerate(bins(before.shape[axis], after.shape[axis])):
            part = before[(*lead, slice(start, end))]
            first = np.expand_dims(part.argmax(axis), axis)
            places = np.arange(end - start).reshape(-1, *(1,) * (part.ndim - 1 - axis))
            wide[(*lead, slice(start, end))] += (first == places) * grad[(*lead, slice(i, i + 1))]
        grad = wide
    return (grad,)


# Resampling


@gradient_kernel("interpolate")
def interpolate_gradient(grad, input, output, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Gradient of `interpolate`: the same matrices, transposed."""
    factors = (None,) * (input.ndim - 2) if scale_factor is None else per_axis(scale_factor, input.ndim - 2)
    for axis, factor in enumerate(factors, 2):
        have, count = input.shape[axis], output.shape[axis]
        if count != have or factor is not None:
            matrix = resampling(have, count, factor, mode, align_corners, grad.dtype)
            grad = np.moveaxis(np.moveaxis(grad, axis, -1) @ matrix, -1, axis)
    return (grad,)


def tap_slopes(grid, size, mode, padding_mode, align_corners):
    """Derivatives of the weights of `grid_taps`, whose places are linear in `grid` nearly everywhere."""
    places = sampled_places(grid, size, align_corners)
    scale = (size - 1) / 2 if align_corners else size / 2
    if mode == "nearest":
        return [np.zeros_like(grid)]
    if mode == "bicubic":
        steps = [places - np.floor(places) - i for i in (-1, 0, 1, 2)]
        near = [3.75 * x * np.abs(x) - 4.5 * x for x in steps]
        far = [np.sign(x) * ((-2.25 * np.abs(x) + 7.5) * np.abs(x) - 6) for x in steps]
        return [scale * np.where(np.abs(x) <= 1, a, b) for x, a, b in zip(steps, near, far)]
    slope = np.full_like(places, scale)
    if padding_mode != "zeros":
        seen = bounded(places, size, padding_mode, align_corners)
        slope = np.where((seen > 0) & (seen < size - 1), slope, 0)
    if padding_mode == "reflection":
        low, span = (0, size - 1) if align_corners else (-0.5, size)
        slope = np.where(np.remainder(places - low, max(2 * span, 1)) < span, slope, -slope)
    return [-slope, slope]


@gradient_kernel("grid_sample")
def grid_sample_gradient(grad, input, grid, output, mode="bilinear", padding_mode="zeros", align_corners=False):
    """Gradients of `grid_sample` for input and grid."""
    n, _, h, w = input.shape
    settings = mode, padding_mode, align_corners
    columns = list(zip(grid_taps(grid[..., 0], w, *settings), tap_slopes(grid[..., 0], w, *settings)))
    rows = list(zip(grid_taps(grid[..., 1], h, *settings), tap_slopes(grid[..., 1], h, *settings)))
    pixels, grads = np.moveaxis(input, 1, -1), np.moveaxis(grad, 1, -1)
    pixels_grad, grid_grad = np.zeros_like(pixels), np.zeros_like(grid)
    images = np.arange(n).reshape(-1, 1, 1)
    for (row, by_row), row_slope in rows:
        for (column, by_column), column_slope in columns:
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            place = (images, np.clip(row, 0, h - 1).astype(int), np.clip(column, 0, w - 1).astype(int))
            np.add.at(pixels_grad, place, grads * (inside * by_row * by_column)[..., None])
            share = (pixels[place] * grads).sum(axis=-1) * inside
            grid_grad[..., 0] += share * by_row * column_slope
            grid_grad[..., 1] += share * row_slope * by_column
    return np.moveaxis(pixels_grad, -1, 1), grid_grad


# Reductions


def spread_out(value, input, axis, keepdims):
    """A reduction's result beside the values it was made of."""
    if keepdims or axis is None:
        return value if keepdims else value.reshape((1,) * input.ndim)
    return np.expand_dims(value, axis)


def count_of(input, axis):
    """How many values each reduction takes in."""
    axes = range(input.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return math.prod(input.shape[a] for a in axes)


@gradient_kernel("sum")
def sum_gradient(grad, input, output, axis=None, keepdims=False):
    """Gradient of `sum`."""
    return (np.broadcast_to(spread_out(grad, input, axis, keepdims), input.shape),)


@gradient_kernel("mean")
def mean_gradient(grad, input, output, axis=None, keepdims=False):
    """Gradient of `mean`."""
    return (np.broadcast_to(spread_out(grad, input, axis, keepdims) / count_of(input, axis), input.shape),)


@gradient_kernel("prod")
def prod_gradient(grad, input, output, axis=None, keepdims=False):
    """Gradient of `prod`: the product of the other values, also where one of them is zero."""
    zero = input == 0
    values = np.where(zero, 1, input)
    others = values.prod(axis=axis, keepdims=True) / values
    zeros = zero.sum(axis=axis, keepdims=True)
    return (spread_out(grad, input, axis, keepdims) * others * (zeros == zero),)


@gradient_kernel("max min")
def extremum_gradient(grad, input, output, axis=None, keepdims=False):
    """Gradient of `max` and `min`, in equal parts to equal values."""
    chosen = input == spread_out(output, input, axis, keepdims)
    share = spread_out(grad, input, axis, keepdims) / chosen.sum(axis=axis, keepdims=True)
    return (chosen * share,)


@gradient_kernel("variance")
def variance_gradient(grad, input, output, axis=None, keepdims=False, correction=0):
    """Gradient of `variance`."""
    center = input - input.mean(axis=axis, keepdims=True)
    return (spread_out(grad, input, axis, keepdims) * center * (2 / (count_of(input, axis) - correction)),)


@gradient_kernel("std")
def std_gradient(grad, input, output, axis=None, keepdims=False, correction=0):
    """Gradient of `std`."""
    center = input - input.mean(axis=axis, keepdims=True)
    return (spread_out(grad / output, input, axis, keepdims) * center / (count_of(input, axis) - correction),)


@gradient_kernel("logsumexp")
def logsumexp_gradient(grad, input, output, axis=None, keepdims=False):
    """Gradient of `logsumexp`: the softmax."""
    weights = np.exp(input - spread_out(output, input, axis, keepdims))
    return (spread_out(grad, input, axis, keepdims) * weights,)


@gradient_kernel("norm")
def norm_gradient(grad, input, output, axis=None, keepdims=False, ord=2):
    """Gradient of `norm`."""
    share, whole = (spread_out(v, input, axis, keepdims) for v in (grad, output))
    if ord == math.inf:
        chosen = np.abs(input) == whole
        return (share * chosen * np.sign(input) / chosen.sum(axis=axis, keepdims=True),)
    whole = np.where(whole == 0, 1, whole)
    return (share * np.sign(input) * (np.abs(input) / whole) ** (ord - 1),)


@gradient_kernel("cumsum")
def cumsum_gradient(grad, input, output, axis):
    """Gradient of `cumsum`: the cumulative sum from the other end."""
    return (np.flip(np.cumsum(np.flip(grad, axis), axis), axis),)


@gradient_kernel("cumprod")
def cumprod_gradient(grad, input, output, axis):
    """Gradient of `cumprod`; with zeros among the values, by the products without each of them."""
    if np.all(input != 0):
        return (np.flip(np.cumsum(np.flip(grad * output, axis), axis), axis) / input,)
    values, grads = np.moveaxis(input, axis, -1), np.moveaxis(grad, axis, -1)
    input_grad = np.empty_like(values)
    for i in range(values.shape[-1]):
        others = np.where(np.arange(values.shape[-1]) == i, 1, values)
        input_grad[..., i] = (np.cumprod(others, -1) * grads)[..., i:].sum(axis=-1)
    return (np.moveaxis(input_grad, -1, axis),)


@gradient_kernel("cummax cummin")
def running_extremum_gradient(grad, input, output, axis):
    """Gradient of `cummax` and `cummin`: to the last value so far that equals the extremum."""
    places = np.arange(input.shape[axis]).reshape([-1 if a == axis % input.ndim else 1 for a in range(input.ndim)])
    index = np.maximum.accumulate(np.where(input == output, places, 0), axis)
    input_grad = np.zeros_like(input)
    np.add.at(input_grad, placed(index, axis), grad)
    return (input_grad,)


@gradient_kernel("logcumsumexp")
def logcumsumexp_gradient(grad, input, output, axis):
    """Gradient of `logcumsumexp`: from the last value on, what later sums pass back, in shares of these sums."""
    grads, sums = np.moveaxis(grad, axis, 0).copy(), np.moveaxis(output, axis, 0)
    for i in range(len(grads) - 2, -1, -1):
        grads[i] += grads[i + 1] * np.exp(sums[i] - sums[i + 1])
    return (np.moveaxis(grads, 0, axis) * np.exp(input - output),)


@gradient_kernel("sort")
def sort_gradient(grad, input, output, axis=-1, descending=False):
    """Gradient of `sort`: each value's goes back to its place."""
    order = np.argsort(-input if descending else input, axis=axis, kind="stable")
    input_grad = np.zeros_like(input)
    np.put_along_axis(input_grad, order, grad, axis)
    return (input_grad,)


@gradient_kernel("topk")
def topk_gradient(grads, input, outputs, k, axis=-1, largest=True):
    """Gradient of `topk`'s values."""
    input_grad = np.zeros_like(input)
    np.put_along_axis(input_grad, outputs[1], grads[0], axis)
    return (input_grad,)


# Moving values


@gradient_kernel("broadcast_to")
def broadcast_to_gradient(grad, input, output, shape):
    """Gradient of `broadcast_to`."""
    return (unbroadcast(grad, input.shape),)


@gradient_kernel("tile")
def tile_gradient(grad, input, output, repeats):
    """Gradient of `tile`: the sum over the copies."""
    sizes = (1,) * (len(repeats) - input.ndim) + input.shape
    pairs = grad.reshape([n for pair in zip(repeats, sizes) for n in pair])
    return (pairs.sum(axis=tuple(range(0, 2 * len(sizes), 2))).reshape(input.shape),)


@gradient_kernel("repeat")
def repeat_gradient(grad, input, output, repeats, axis):
    """Gradient of `repeat`: the sum over the copies."""
    axis = axis % input.ndim
    return (grad.reshape(*input.shape[: axis + 1], repeats, *input.shape[axis + 1 :]).sum(axis=axis + 1),)


@gradient_kernel("pad")
def pad_gradient(grad, input, output, padding, mode="constant", value=0):
    """Gradient of `pad`: copies add to where they came from."""
    for axis, (before, after) in enumerate(padding, input.ndim - len(padding)):
        size = input.shape[axis]
        if mode == "constant":
            margin = [(0, 0)] * axis + [(max(-before, 0), max(-after, 0))] + [(0, 0)] * (grad.ndim - axis - 1)
            kept = slice(max(before, 0), grad.shape[axis] - max(after, 0))
            grad = np.pad(grad[(*(slice(None),) * axis, kept)], margin)
        else:
            numbers, margin = np.arange(size), (before, after)
            if mode == "reflect":
                source = np.pad(numbers, margin, mode="reflect")
            else:
                source = np.pad(numbers, margin, mode="edge" if mode == "replicate" else "wrap")
            folded = np.zeros((size, *np.moveaxis(grad, axis, 0).shape[1:]), grad.dtype)
            np.add.at(folded, source, np.moveaxis(grad, axis, 0))
            grad = np.moveaxis(folded, 0, axis)
    return (grad,)


@gradient_kernel("concat")
def concat_gradient(grad, inputs, output, axis=0):
    """Gradients of `concat`: the pieces."""
    return (np.split(grad, np.cumsum([part.shape[axis] for part in inputs])[:-1], axis=axis),)


@gradient_kernel("stack")
def stack_gradient(grad, inputs, output, axis=0):
    """Gradients of `stack`: the slices."""
    return (list(np.moveaxis(grad, axis, 0)),)


@gradient_kernel("split")
def split_gradient(grads, input, outputs, split_size, axis=0):
    """Gradient of `split`: the pieces together."""
    return (np.concatenate(grads, axis=axis),)


@gradient_kernel("unbind")
def unbind_gradient(grads, input, outputs, axis=0):
    """Gradient of `unbind`: the slices together."""
    return (np.stack(grads, axis=axis),)


@gradient_kernel("meshgrid")
def meshgrid_gradient(grads, inputs, outputs, indexing="ij"):
    """Gradients of `meshgrid`: each input's axis, summed over the others."""
    turned = grads if indexing == "ij" else [np.swapaxes(grad, 0, 1) for grad in grads]
    others = [tuple(a for a in range(len(inputs)) if a != i) for i in range(len(inputs))]
    return ([grad.sum(axis=axes) for grad, axes in zip(turned, others)],)


@gradient_kernel("index")
def index_gradient(grad, input, indices, output, key):
    """Gradient of `input[key]`; places that were read twice add up."""
    input_grad = np.zeros_like(input)
    tensors = iter(indices or ())
    items = key if isinstance(key, tuple) else (key,)
    place = tuple(next(tensors) if isinstance(item, str) else item for item in items)
    np.add.at(input_grad, place, grad)
    return input_grad, None


@gradient_kernel("take")
def take_gradient(grad, input, index, output, axis=0):
    """Gradient of `take`; repeated indices add up."""
    input_grad = np.zeros_like(input)
    np.add.at(input_grad, (*(slice(None),) * (axis % input.ndim), index), grad)
    return input_grad, None


@gradient_kernel("take_along_axis")
def take_along_axis_gradient(grad, input, index, output, axis=0):
    """Gradient of `take_along_axis`; repeated indices add up."""
    input_grad = np.zeros_like(input)
    np.add.at(input_grad, placed(index, axis), grad)
    return input_grad, None


@gradient_kernel("scatter_add")
def scatter_add_gradient(grad, input, index, updates, output, axis=0):
    """Gradients of `scatter_add` for input and updates."""
    updates_grad = np.zeros_like(updates)
    updates_grad[tuple(map(slice, index.shape))] = grad[placed(index, axis)]
    return grad, None, updates_grad


@gradient_kernel("scatter")
def scatter_gradient(grad, input, index, updates, output, axis=0):
    """Gradients of `scatter` for input and updates, for indices that do not repeat."""
    input_grad, updates_grad = grad.copy(), np.zeros_like(updates)
    input_grad[placed(index, axis)] = 0
    updates_grad[tuple(map(slice, index.shape))] = grad[placed(index, axis)]
    return input_grad, None, updates_grad


@gradient_kernel("slice_scatter")
def slice_scatter_gradient(grad, input, source, output, key):
    """Gradients of `slice_scatter` for input and source."""
    input_grad = grad.copy()
    input_grad[key] = 0
    return input_grad, unbroadcast(grad[key], source.shape)


@gradient_kernel("dropout")
def dropout_gradient(grad, input, key, output, rate=0.5, training=True):
    """Gradient of `dropout`: the same mask again."""
    return dropout(grad, key, rate), None
