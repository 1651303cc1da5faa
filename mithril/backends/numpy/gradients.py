"""Vector-Jacobian products on NumPy, for the operators whose gradient is more than an expression.

The rows' gradient rules call them; their sources are pasted into generated modules.
"""

import math

import numpy as np

from mithril.backends.array import (
    adaptive_pool,
    attention_weights,
    bins,
    bounded,
    channels,
    grid_taps,
    per_axis,
    placed,
    resampling,
    sampled_places,
    windows,
)
from mithril.backends.numpy.kernels import erf, fold
from mithril.ops.linalg import einsum_terms


def unbroadcast(grad, shape):
    """`grad` summed over the axes along which an operand of `shape` was broadcast."""
    extra = grad.ndim - len(shape)
    axes = [a for a in range(grad.ndim) if a < extra or (shape[a - extra] == 1 and grad.shape[a] != 1)]
    return grad.sum(axis=tuple(axes)).reshape(shape) if axes else grad


# Products


def kernel_gradient(grad, input, shape, stride, padding, dilation, groups):
    """Gradient of `convolution` for its weight of this shape."""
    columns = windows(np.pad(input, ((0, 0), (0, 0), *padding)), shape[2:], stride, dilation)
    columns = columns[(..., *map(slice, grad.shape[2:]))].reshape(len(grad), groups, -1, math.prod(grad.shape[2:]))
    rows = grad.reshape(len(grad), groups, shape[0] // groups, -1)
    return (rows @ columns.swapaxes(2, 3)).sum(axis=0).reshape(shape)


def matmul_gradient(grad, left, right):
    """Gradients of `left @ right`, with the promotion of vectors and the broadcasting of batches undone."""
    wide_left = left[None] if left.ndim == 1 else left
    wide_right = right[:, None] if right.ndim == 1 else right
    grad = np.expand_dims(grad, [axis for axis, side in ((-1, right), (-2, left)) if side.ndim == 1])
    left_grad = unbroadcast(grad @ wide_right.swapaxes(-1, -2), wide_left.shape)
    right_grad = unbroadcast(wide_left.swapaxes(-1, -2) @ grad, wide_right.shape)
    return left_grad.reshape(left.shape), right_grad.reshape(right.shape)


def einsum_gradient(grad, operands, equation):
    """Gradients of `einsum`: each operand's is an einsum of the others; axes summed alone are broadcast back, and an
    axis named twice has its gradient on the diagonal."""
    terms, output = einsum_terms(equation, [operand.ndim for operand in operands])
    grads = []
    for i, (term, operand) in enumerate(zip(terms, operands)):
        others = [t for j, t in enumerate(terms) if j != i]
        own = "".join(dict.fromkeys(term))
        known = "".join(axis for axis in own if axis in output or any(axis in t for t in others))
        values = [o for j, o in enumerate(operands) if j != i]
        part = np.einsum(",".join([output, *others]) + "->" + known, grad, *values)
        part = np.expand_dims(part, tuple(a for a, axis in enumerate(own) if axis not in known))
        full = np.zeros_like(operand)
        diagonal = np.einsum(f"{term}->{own}", full)
        diagonal[...] = unbroadcast(part, diagonal.shape)
        grads.append(full)
    return grads


def solve_gradient(grad, left, right, output):
    """Gradients of `solve` for both sides."""
    right_grad = np.linalg.solve(left.swapaxes(-1, -2), grad)
    left_grad = -right_grad @ output.swapaxes(-1, -2)
    return unbroadcast(left_grad, left.shape), unbroadcast(right_grad, right.shape)


def cholesky_gradient(grad, output):
    """Gradient of `cholesky` (Murray, "Differentiation of the Cholesky decomposition", 2016, Eq. 10)."""
    inner = np.tril(output.swapaxes(-1, -2) @ grad) * (1 - 0.5 * np.eye(output.shape[-1], dtype=output.dtype))
    half = np.linalg.solve(output.swapaxes(-1, -2), inner)
    whole = np.linalg.solve(output.swapaxes(-1, -2), half.swapaxes(-1, -2)).swapaxes(-1, -2)
    return (whole + whole.swapaxes(-1, -2)) / 2


# Normalization, attention, loss


def normalization_gradient(grad, input, axes, eps, centered=True):
    """Gradient of the division of `input`, less its mean, by its deviation over `axes`; and the normal values."""
    center = input - input.mean(axis=axes, keepdims=True) if centered else input
    scale = 1 / np.sqrt(np.mean(center**2, axis=axes, keepdims=True) + eps)
    normal = center * scale
    grad = grad - grad.mean(axis=axes, keepdims=True) if centered else grad
    return scale * (grad - normal * np.mean(grad * normal, axis=axes, keepdims=True)), normal


def layer_norm_gradient(grad, input, weight=None, bias=None, dims=1, eps=1e-5, centered=True):
    """Gradients of `layer_norm`, or (not centered) `rms_norm`, for input, weight and bias."""
    inner = grad if weight is None else grad * weight
    input_grad, normal = normalization_gradient(inner, input, tuple(range(-dims, 0)), eps, centered)
    weight_grad = None if weight is None else unbroadcast(grad * normal, weight.shape)
    return input_grad, weight_grad, None if bias is None else unbroadcast(grad, bias.shape)


def channel_norm_gradient(grad, input, weight, bias, shape, axes, eps):
    """Gradients for input, weight and bias of a normalization over `axes` of the input in `shape`, scaled by channel:
    `group_norm`, and `batch_norm_training`, whose running statistics carry none."""
    inner = grad if weight is None else grad * channels(weight, input)
    input_grad, normal = normalization_gradient(inner.reshape(shape), input.reshape(shape), axes, eps)
    return input_grad.reshape(input.shape), *affine_gradient(grad, normal.reshape(input.shape), weight, bias)


def affine_gradient(grad, normal, weight, bias):
    """Gradients of a weight and a bias per channel of (n, c, *spatial)."""
    rows = (0, *range(2, grad.ndim))
    weight_grad = None if weight is None else (grad * normal).sum(axis=rows)
    return weight_grad, None if bias is None else grad.sum(axis=rows)


def batch_norm_gradient(grad, input, mean, var, weight, bias, eps):
    """Gradients of `batch_norm` for input, mean, variance, weight and bias."""
    scale = 1 / np.sqrt(var + eps)
    normal = (input - channels(mean, input)) * channels(scale, input)
    inner = grad if weight is None else grad * channels(weight, input)
    rows = (0, *range(2, grad.ndim))
    mean_grad = -inner.sum(axis=rows) * scale
    var_grad = -0.5 * (inner * normal).sum(axis=rows) * scale**2
    return inner * channels(scale, input), mean_grad, var_grad, *affine_gradient(grad, normal, weight, bias)


def attention_gradient(grad, query, key, value, mask, is_causal, scale):
    """Gradients of `scaled_dot_product_attention` for query, key, value and an additive mask."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    weights = attention_weights(query, key, mask, is_causal, scale)
    weights_grad = grad @ value.swapaxes(-1, -2)
    scores_grad = weights * (weights_grad - (weights_grad * weights).sum(axis=-1, keepdims=True))
    query_grad = unbroadcast(scores_grad @ key * scale, query.shape)
    key_grad = unbroadcast(scores_grad.swapaxes(-1, -2) @ query * scale, key.shape)
    value_grad = unbroadcast(weights.swapaxes(-1, -2) @ grad, value.shape)
    mask_grad = None if mask is None or mask.dtype == bool else unbroadcast(scores_grad, mask.shape)
    return query_grad, key_grad, value_grad, mask_grad


def cross_entropy_gradient(grad, input, target, label_smoothing, ignore_index, weight=None):
    """Gradient of `cross_entropy` for the logits: probabilities minus the wanted distribution."""
    shares = np.exp(input - input.max(axis=1, keepdims=True))
    shares = shares / shares.sum(axis=1, keepdims=True)
    classes = np.arange(input.shape[1]).reshape(-1, *(1,) * (target.ndim - 1))
    wanted = (np.expand_dims(target, 1) == classes).astype(input.dtype)
    wanted = wanted * (1 - label_smoothing) + label_smoothing / input.shape[1]
    wanted = wanted if weight is None else wanted * channels(np.array(weight, input.dtype), input)
    slope = shares * wanted.sum(axis=1, keepdims=True) - wanted
    return slope * np.expand_dims(grad * (target != ignore_index), 1)


def gelu_slope(input, approximate):
    """Derivative of `gelu`."""
    if approximate == "tanh":
        root = math.sqrt(2 / math.pi)
        bend = np.tanh(root * (input + 0.044715 * input**3))
        return 0.5 * (1 + bend) + 0.5 * input * (1 - bend**2) * root * (1 + 3 * 0.044715 * input**2)
    slope = 0.5 * (1 + erf(input / math.sqrt(2)))
    return slope + input * np.exp(-0.5 * input**2) / math.sqrt(2 * math.pi)


# Pooling and resampling


def max_pool_gradient(grad, input, kernel, stride, padding, dilation):
    """Gradient of the largest values of windows: to the first of them in each window."""
    columns = windows(np.pad(input, ((0, 0), (0, 0), *padding), constant_values=-np.inf), kernel, stride, dilation)
    first = np.expand_dims(columns.argmax(axis=2), 2)
    chosen = np.arange(columns.shape[2]).reshape(-1, *(1,) * len(kernel)) == first
    return fold(np.expand_dims(grad, 2) * chosen, kernel, input.shape[2:], stride, padding, dilation)


def adaptive_pool_gradient(grad, input, reduce):
    """Gradient of means or maxima over bins; that of a maximum goes to the first largest value."""
    stages = [adaptive_pool(reduce, input, grad.shape[2:axis]) for axis in range(2, input.ndim)]
    for axis, before in reversed(list(enumerate(stages, 2))):
        wide, lead = np.zeros_like(before), (slice(None),) * axis
        for i, (start, end) in enumerate(bins(before.shape[axis], grad.shape[axis])):
            part = before[(*lead, slice(start, end))]
            numbers = np.arange(end - start).reshape(-1, *(1,) * (part.ndim - 1 - axis))
            first = numbers == np.expand_dims(part.argmax(axis), axis)
            share = first if reduce is np.max else 1 / (end - start)
            wide[(*lead, slice(start, end))] += grad[(*lead, slice(i, i + 1))] * share
        grad = wide
    return grad


def interpolate_gradient(grad, input, scale_factor, mode, align_corners):
    """Gradient of `interpolate`: the same matrices, transposed."""
    for axis, factor in enumerate(per_axis(scale_factor, input.ndim - 2), 2):
        have, count = input.shape[axis], grad.shape[axis]
        if count != have or factor is not None:
            matrix = resampling(have, count, factor, mode, align_corners, grad.dtype)
            grad = np.moveaxis(np.moveaxis(grad, axis, -1) @ matrix, -1, axis)
    return grad


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


def grid_sample_gradient(grad, input, grid, mode="bilinear", padding_mode="zeros", align_corners=False):
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


def beside(value, input, axis, keepdims):
    """A reduction's result at every value that it was made of."""
    if not keepdims:
        value = np.reshape(value, (1,) * input.ndim) if axis is None else np.expand_dims(value, axis)
    return np.broadcast_to(value, input.shape)


def shares(chosen, axis, dtype):
    """Equal parts for the chosen values along `axis`, which add up to 1."""
    return (chosen / chosen.sum(axis=axis, keepdims=True)).astype(dtype)


def product_of_others(input, axis):
    """For each value the product of the others, also where some are zero."""
    zero = input == 0
    values = np.where(zero, 1, input)
    return values.prod(axis=axis, keepdims=True) / values * (zero.sum(axis=axis, keepdims=True) == zero)


def norm_slope(input, norm, axis, ord):
    """Derivative of `norm`, whose value stands beside `input`; zeros have none."""
    if ord == 0:
        return np.zeros_like(input)
    if abs(ord) == math.inf:
        return np.sign(input) * shares(np.abs(input) == norm, axis, input.dtype)
    ratio = np.abs(input) / np.where(norm == 0, 1, norm)
    return np.sign(input) * np.where(ratio == 0, 1, ratio) ** (ord - 1) * (norm != 0)


def cumprod_gradient(grad, input, output, axis):
    """Gradient of `cumprod`; with zeros among the values, by the products without each of them."""
    if np.all(input != 0):
        return np.flip(np.cumsum(np.flip(grad * output, axis), axis), axis) / input
    values, grads = np.moveaxis(input, axis, -1), np.moveaxis(grad, axis, -1)
    input_grad = np.empty_like(values)
    for i in range(values.shape[-1]):
        others = np.where(np.arange(values.shape[-1]) == i, 1, values)
        input_grad[..., i] = (np.cumprod(others, -1) * grads)[..., i:].sum(axis=-1)
    return np.moveaxis(input_grad, -1, axis)


def last_equal(input, output, axis):
    """Where the last value so far is that equals a running extremum, as indices for every place."""
    places = np.arange(input.shape[axis]).reshape([-1 if a == axis % input.ndim else 1 for a in range(input.ndim)])
    return placed(np.maximum.accumulate(np.where(input == output, places, 0), axis), axis)


def logcumsumexp_gradient(grad, input, output, axis):
    """Gradient of `logcumsumexp`: from the last value on, what later sums pass back, in shares of these sums."""
    grads, sums = np.moveaxis(grad, axis, 0).copy(), np.moveaxis(output, axis, 0)
    for i in range(len(grads) - 2, -1, -1):
        grads[i] += grads[i + 1] * np.exp(sums[i] - sums[i + 1])
    return np.moveaxis(grads, 0, axis) * np.exp(input - output)


# Moving values


def moved_back(grad, input, move):
    """Gradient of `move`, which puts values at other places, some twice, and zeros where there are none."""
    numbers = np.arange(1, input.size + 1).reshape(input.shape)
    sums = np.bincount(move(numbers).ravel(), grad.ravel(), input.size + 1)
    return sums[1:].reshape(input.shape).astype(grad.dtype)


def meshgrid_gradient(grads, indexing):
    """Gradients of `meshgrid`: each input's axis, summed over the others."""
    turned = grads if indexing == "ij" or len(grads) < 2 else [np.swapaxes(grad, 0, 1) for grad in grads]
    return [grad.sum(axis=tuple(a for a in range(grad.ndim) if a != i)) for i, grad in enumerate(turned)]


def at_front(part, whole):
    """`part` in the first places of zeros like `whole`."""
    return np.pad(part, [(0, size - count) for size, count in zip(whole.shape, part.shape)])


def exponent_slope(left, right, output):
    """How a power grows with its exponent: power * log(base); a base below 0 has none, 0 its limit."""
    slope = output * np.log(np.where(left > 0, left, 1))
    return np.where(left < 0, np.nan, np.where(left == 0, np.where(right < 0, -np.inf, 0), slope))
