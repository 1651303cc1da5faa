"""MLX kernels. Their sources are pasted into generated modules; they use `mx`, `math` and each other.

MLX convolves with channels last.
"""

import math

import mlx.core as mx

from mithril.backends.array import grid_corners, per_axis, placed
from mithril.ops.table import kernel


def margins(padding, kernel, dilation):
    """Rows of padding before and after each spatial axis."""
    if padding == "same":
        reach = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return [r // 2 for r in reach], [r - r // 2 for r in reach]
    pairs = [(p, p) if isinstance(p, int) else p for p in per_axis(0 if padding == "valid" else padding, len(kernel))]
    return [before for before, _ in pairs], [after for _, after in pairs]


@kernel("conv1d conv2d conv3d", "mlx")
def convolution(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of (n, c, *spatial) with (o, c / groups, *kernel), any rank."""
    kernel = weight.shape[2:]
    dilations = per_axis(dilation, len(kernel))
    output = mx.conv_general(
        mx.moveaxis(input, 1, -1),
        mx.moveaxis(weight, 1, -1),
        stride=per_axis(stride, len(kernel)),
        padding=margins(padding, kernel, dilations),
        kernel_dilation=dilations,
        groups=groups,
    )
    return mx.moveaxis(output if bias is None else output + bias, -1, 1)


@kernel("conv_transpose1d conv_transpose2d conv_transpose3d", "mlx")
def conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Transposed convolution of (n, c, *spatial) with (c, o / groups, *kernel): a flipped kernel, a dilated input."""
    kernel, (c, o) = weight.shape[2:], weight.shape[:2]
    rank = len(kernel)
    dilations = per_axis(dilation, rank)
    parts = mx.swapaxes(weight.reshape(groups, c // groups, o, *kernel), 1, 2)
    reach = [d * (k - 1) for k, d in zip(kernel, dilations)]
    before, after = margins(padding, kernel, dilations)
    output = mx.conv_general(
        mx.moveaxis(input, 1, -1),
        mx.moveaxis(parts.reshape(groups * o, c // groups, *kernel), 1, -1),
        padding=(
            [r - p for r, p in zip(reach, before)],
            [r - p + e for r, p, e in zip(reach, after, per_axis(output_padding, rank))],
        ),
        kernel_dilation=dilations,
        input_dilation=per_axis(stride, rank),
        groups=groups,
        flip=True,
    )
    return mx.moveaxis(output if bias is None else output + bias, -1, 1)


@kernel("layer_norm", "mlx")
def layer_norm(input, weight=None, bias=None, dims=1, eps=1e-5):
    """Normalize over the last `dims` axes."""
    rows = input.reshape(*input.shape[: input.ndim - dims], -1)
    weight, bias = (p if p is None else p.reshape(-1) for p in (weight, bias))
    return mx.fast.layer_norm(rows, weight, bias, eps).reshape(input.shape)


@kernel("rms_norm", "mlx")
def rms_norm(input, weight=None, eps=1e-6):
    """Divide by the root of the mean square over the last axis."""
    return mx.fast.rms_norm(input, weight, eps)


@kernel("scaled_dot_product_attention", "mlx")
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


@kernel("grid_sample", "mlx")
def grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False):
    """Values of (n, c, h, w) at the places (n, y, x, 2) of `grid`; MLX wants indices without gradient."""
    n, c, h, w = input.shape
    pixels = mx.moveaxis(input.reshape(n, c, h * w), 1, -1)
    images = mx.arange(n).reshape(n, 1, 1)
    corners = grid_corners(input.shape, grid, mode, padding_mode, align_corners)
    output = mx.zeros((*grid.shape[:-1], c), dtype=input.dtype)
    for index, weight in corners:
        output = output + pixels[images, mx.stop_gradient(index)] * weight[..., None]
    return mx.moveaxis(output, -1, 1)


@kernel("gelu", "mlx")
def gelu(input, approximate="none"):
    """`input` times the normal distribution's cumulative share below it."""
    if approximate == "tanh":
        return 0.5 * input * (1 + mx.tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))
    return 0.5 * input * (1 + mx.erf(input / math.sqrt(2)))


@kernel("inverse", "mlx")
def inverse(input):
    """The inverse; MLX has none of its gradient."""
    find = mx.custom_function(lambda a: mx.linalg.inv(a, stream=mx.cpu))
    find.vjp(lambda a, grad, output: -mx.swapaxes(output, -1, -2) @ grad @ mx.swapaxes(output, -1, -2))
    return find(input)


@kernel("solve", "mlx")
def solve(left, right):
    """x with left x = right, through the inverse."""
    return inverse(left) @ right


@kernel("cholesky", "mlx")
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


@kernel("pad", "mlx")
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


@kernel("sort", "mlx")
def sort(input, axis=-1, descending=False):
    """Values in order along `axis`."""
    return -mx.sort(-input, axis=axis) if descending else mx.sort(input, axis=axis)


@kernel("argsort", "mlx")
def argsort(input, axis=-1, descending=False):
    """Indices that sort `input` along `axis`."""
    return mx.argsort(-input if descending else input, axis=axis).astype(mx.int64)


@kernel("topk", "mlx")
def topk(input, k, axis=-1, largest=True):
    """The `k` largest (or smallest) values along `axis`, in order, and their indices."""
    indices = mx.stop_gradient(mx.take(argsort(input, axis, largest), mx.arange(k), axis=axis))
    return mx.take_along_axis(input, indices, axis=axis), indices


@kernel("scatter", "mlx")
def scatter(input, index, updates, axis=0):
    """`input` with the values at `index` along `axis` replaced by `updates`."""
    output = mx.array(input)
    output[placed(index, axis)] = updates[tuple(map(slice, index.shape))]
    return output


@kernel("slice_scatter", "mlx")
def slice_scatter(input, source, key):
    """`input` with the part `key` replaced by `source`."""
    output = mx.array(input)
    output[key] = source
    return output


@kernel("fold_key", "mlx")
def fold_key(key, index):
    """A new random key from `key` and the number `index`."""
    return mx.random.split(key.view(mx.uint32), index + 1)[index].view(mx.int32)


@kernel("rand", "mlx")
def rand(key, shape, dtype=mx.float32):
    """Numbers from 0 to 1."""
    return mx.random.uniform(shape=shape, dtype=dtype, key=key.view(mx.uint32))


@kernel("randn", "mlx")
def randn(key, shape, dtype=mx.float32):
    """Numbers of mean 0 and variance 1."""
    return mx.random.normal(shape=shape, dtype=dtype, key=key.view(mx.uint32))


@kernel("dropout", "mlx")
def dropout(input, key, rate=0.5, training=True):
    """`input` with a share `rate` of its values zeroed and the rest scaled up; `key` decides which."""
    kept = mx.random.uniform(shape=input.shape, key=key.view(mx.uint32)) >= rate
    return mx.where(kept, input / (1 - rate), 0)
