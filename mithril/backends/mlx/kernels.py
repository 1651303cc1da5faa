"""MLX kernels. Their sources are pasted into generated modules; they use `mx`, `math` and each other.

MLX convolves with channels last.
"""

import math

import mlx.core as mx

from mithril.backends.array import leading, placed


def convolution(input, weight, bias=None, **settings):
    """Convolution of (n, c, *spatial) with (o, c / groups, *kernel), with the settings of `mx.conv_general`."""
    output = mx.conv_general(mx.moveaxis(input, 1, -1), mx.moveaxis(weight, 1, -1), **settings)
    return mx.moveaxis(output if bias is None else output + bias, -1, 1)


def scaled_dot_product_attention(query, key, value, mask=None, is_causal=False, scale=None):
    """softmax(q k^T * scale + mask) v. A bool mask is True where a query may look; one that sees nothing gives 0."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    seeing = mx.any(mask, axis=-1, keepdims=True) if mask is not None and mask.dtype == mx.bool_ else None
    if is_causal:
        mask = mx.tri(query.shape[-2], key.shape[-2], dtype=mx.int32) > 0
    shape = (*query.shape[:-1], value.shape[-1])
    q, k, v = (x.reshape(-1, 1, *x.shape[-2:]) if x.ndim != 4 else x for x in (query, key, value))
    if mask is not None and query.ndim != 4:
        mask = mx.broadcast_to(mask, (*query.shape[:-1], key.shape[-2])).reshape(-1, 1, *mask.shape[-2:])
    output = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask).reshape(shape)
    return output if seeing is None else output * seeing


def maximum(left, right):
    """The larger value; equal ones share the gradient."""
    return mx.where(left == right, halved(left, right), mx.maximum(left, right))


def minimum(left, right):
    """The smaller value; equal ones share the gradient."""
    return mx.where(left == right, halved(left, right), mx.minimum(left, right))


def apart(values):
    """Values with the smallest numbers for zeros: MLX multiplies an infinite slope by 0, which is no number."""
    return mx.where(values == 0, 1e-36, values).astype(values.dtype)


def power(left, right):
    """left ** right; an exponent of 0 leaves the base without a gradient, and has none itself."""
    return mx.where(right == 0, 1, left) ** right


def arctan2(left, right):
    """The angle of (right, left); the origin has no gradient."""
    origin = (left == 0) & (right == 0)
    return mx.arctan2(mx.where(origin, mx.stop_gradient(left), left), mx.where(origin, 1, right))


def halved(left, right):
    """The mean of equal values, of their kind."""
    return left / 2 + right / 2 if mx.issubdtype((left + right).dtype, mx.floating) else left


def fixed(values):
    """Values that have no gradient."""
    return mx.stop_gradient(values)


def integer_matmul(left, right):
    """left @ right of integers, exactly; MLX multiplies matrices of floats only."""
    wide_left, wide_right = (left[None] if left.ndim == 1 else left), (right[:, None] if right.ndim == 1 else right)
    found = (wide_left[..., :, :, None] * wide_right[..., None, :, :]).sum(axis=-2)
    found = found.squeeze(-1) if right.ndim == 1 else found
    return found.squeeze(-1 if right.ndim == 1 else -2) if left.ndim == 1 else found


def inverse(input):
    """The inverse; MLX has none of its gradient."""
    find = mx.custom_function(lambda a: mx.linalg.inv(a, stream=mx.cpu))
    find.vjp(lambda a, grad, output: -mx.swapaxes(output, -1, -2) @ grad @ mx.swapaxes(output, -1, -2))
    return find(input)


def solve(left, right):
    """x with left x = right, through the inverse."""
    return inverse(left) @ right


def cholesky(input):
    """The lower triangle L with L L^T = `input`; MLX has none of its gradient."""

    def pull(a, grad, output):
        turned = mx.linalg.inv(mx.swapaxes(output, -1, -2), stream=mx.cpu)
        inner = mx.tril(mx.swapaxes(output, -1, -2) @ grad) * (1 - 0.5 * mx.eye(output.shape[-1]))
        whole = turned @ inner @ mx.swapaxes(turned, -1, -2)
        return (whole + mx.swapaxes(whole, -1, -2)) / 2

    find = mx.custom_function(lambda a: mx.linalg.cholesky(a, stream=mx.cpu))
    find.vjp(pull)
    return find(input)


def pad(input, padding, mode="constant", value=0):
    """Widen the last axes by (before, after) each; negative counts cut."""
    lead = input.ndim - len(padding)
    if mode == "constant":
        margin = [(0, 0)] * lead + [(max(before, 0), max(after, 0)) for before, after in padding]
        input = mx.pad(input, margin, constant_values=value)
        cut = [slice(-min(b, 0), n + min(a, 0)) for (b, a), n in zip(padding, input.shape[lead:])]
        return input[(..., *cut)]
    for axis, (before, after) in enumerate(padding, lead):
        size = input.shape[axis]
        index = mx.arange(-before, size + after)
        if mode == "reflect":
            index = (size - 1) - mx.abs(index % max(2 * (size - 1), 1) - (size - 1))
        elif mode == "replicate":
            index = mx.clip(index, 0, size - 1)
        else:
            index = index % size
        input = mx.take(input, index, axis=axis)
    return input


def argsort(input, axis=-1, descending=False):
    """Indices that sort `input` along `axis`."""
    return mx.stop_gradient(mx.argsort(-input if descending else input, axis=axis).astype(mx.int64))


def uniform(key, shape, dtype=mx.float32):
    """Numbers from 0 to 1 for a random key (2,) int32."""
    return mx.random.uniform(shape=shape, dtype=dtype, key=key.view(mx.uint32))


def held(index, size):
    """Indices from the front of an axis, those outside of it at its ends: MLX would read memory that is not its own."""
    return mx.clip(mx.where(index < 0, index + size, index), 0, size - 1)


def scatter(input, index, updates, axis=0):
    """`updates` put where `index` says along `axis`; what is outside falls away."""
    wide, places = widened(input, index, axis)
    wide[places] = leading(updates, index)
    return mx.split(wide, [input.shape[axis]], axis)[0]


def scatter_add(input, index, updates, axis=0):
    """`updates` added where `index` says along `axis`; what is outside falls away."""
    wide, places = widened(input, index, axis)
    return mx.split(wide.at[places].add(leading(updates, index)), [input.shape[axis]], axis)[0]


def widened(input, index, axis):
    """`input` with one more place along `axis`, and the index with that place for all that are outside."""
    size = input.shape[axis]
    index = mx.where(index < 0, index + size, index)
    index = mx.where((index < 0) | (index >= size), size, index)
    more = mx.zeros([1 if a == axis % input.ndim else n for a, n in enumerate(input.shape)], dtype=input.dtype)
    return mx.concatenate([input, more], axis=axis), placed(index, axis)
