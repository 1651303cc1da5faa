"""NumPy kernels: convolution by windows and one matrix product, pooling, and the error function.

These sources are pasted into generated modules; they use `np`, `math` and each other.

Dims: n batch, c channels, o output channels, k kernel positions, p output positions.
"""

import math

import numpy as np

from mithril.backends.array import placed
from mithril.ops.table import kernel


@kernel("erf", "numpy")
def erf(x):
    """Error function, by W. J. Cody's rational approximations (Math. Comp. 23, 1969; netlib specfun CALERF).

    Relative error below 1e-15 in float64.
    """
    a = (3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02, 3.20937758913846947e03)
    b = (2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03)
    c = (
        *(5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e01, 2.98635138197400131e02),
        *(8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03),
    )
    d = (
        *(1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03),
        *(3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03),
    )
    p = (3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1)
    p = (*p, 1.60837851487422766e-2, 6.58749161529837803e-4)
    q = (2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1)
    q = (*q, 6.05183413124413191e-2, 2.33520497626869185e-3)
    given = x.dtype
    x = x.astype(np.float64 if given == np.float64 else np.float32, copy=False)
    size = np.abs(x)
    near = np.minimum(size, 0.46875) ** 2
    top, bottom = 1.85777706184603153e-1 * near, near
    for i in range(3):
        top, bottom = (top + a[i]) * near, (bottom + b[i]) * near
    inner = x * (top + a[3]) / (bottom + b[3])
    middle = np.clip(size, 0.46875, 4.0)
    top, bottom = 2.15311535474403846e-8 * middle, middle
    for i in range(7):
        top, bottom = (top + c[i]) * middle, (bottom + d[i]) * middle
    tail = (top + c[7]) / (bottom + d[7])
    inverse = 1 / np.maximum(size, 4.0) ** 2
    top, bottom = 1.63153871373020978e-2 * inverse, inverse
    for i in range(4):
        top, bottom = (top + p[i]) * inverse, (bottom + q[i]) * inverse
    far = inverse * (top + p[4]) / (bottom + q[4])
    far = (1 / math.sqrt(math.pi) - far) / np.maximum(size, 4.0)
    tail = np.where(size <= 4.0, tail, far)
    outer = np.sign(x) * (1 - np.exp(-np.square(size)) * tail)
    return np.where(size <= 0.46875, inner, outer).astype(given, copy=False)


def spread(value, rank):
    """One value per spatial axis."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def margins(padding, kernel, dilation):
    """Rows of padding (before, after) of each spatial axis; `padding` is a count, counts, or "same"/"valid"."""
    if padding == "same":
        return [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation)]
    counts = spread(0 if padding == "valid" else padding, len(kernel))
    return [(count, count) if isinstance(count, int) else tuple(count) for count in counts]


def widen(input, margin, value=0):
    """`input` (n, c, *spatial) with a margin of `value` around each spatial axis."""
    if not any(before or after for before, after in margin):
        return input
    return np.pad(input, [(0, 0), (0, 0), *margin], constant_values=value)


def trim(input, margin):
    """The inverse of `widen`."""
    ends = zip(margin, input.shape[2:])
    return input[(..., *(slice(before, size - after) for (before, after), size in ends))]


def windows(input, kernel, stride, dilation):
    """Every window (n, c, *out, *kernel) of `input` (n, c, *spatial), as a view."""
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    axes = tuple(range(2, input.ndim))
    view = np.lib.stride_tricks.sliding_window_view(input, reach, axes)
    steps = [slice(None, None, step) for step in (*stride, *dilation)]
    return view[(slice(None), slice(None), *steps)]


def fold(columns, size, stride, dilation):
    """Sum of the windows `columns` (n, c, *kernel, *out) put back at their places in (n, c, *size)."""
    rank = len(size)
    kernel, out = columns.shape[2 : 2 + rank], columns.shape[2 + rank :]
    output = np.zeros((*columns.shape[:2], *size), columns.dtype)
    for offset in np.ndindex(*kernel):
        starts = [d * at for d, at in zip(dilation, offset)]
        place = [slice(at, at + s * (o - 1) + 1, s) for at, s, o in zip(starts, stride, out)]
        output[(..., *place)] += columns[(slice(None), slice(None), *offset)]
    return output


def unfold(input, kernel, stride, dilation, groups):
    """The windows of `input` as columns (n, groups, c / groups * k, p) of a matrix product."""
    rank = len(kernel)
    view = windows(input, kernel, stride, dilation)
    order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    n, positions = view.shape[0], math.prod(view.shape[2 : 2 + rank])
    rows = view.shape[1] // groups * math.prod(kernel)
    return view.transpose(order).reshape(n, groups, rows, positions)


@kernel("conv1d conv2d conv3d", "numpy")
def convolution(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of (n, c, *spatial) with (o, c / groups, *kernel), any rank."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    stride, dilation = spread(stride, rank), spread(dilation, rank)
    input = widen(input, margins(padding, kernel, dilation))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    out = [(size - r) // s + 1 for size, r, s in zip(input.shape[2:], reach, stride)]
    columns = unfold(input, kernel, stride, dilation, groups)
    output = weight.reshape(groups, weight.shape[0] // groups, -1) @ columns
    output = output.reshape(input.shape[0], weight.shape[0], *out)
    return output if bias is None else output + bias.reshape(-1, *(1,) * rank)


@kernel("conv_transpose1d conv_transpose2d conv_transpose3d", "numpy")
def conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Transposed convolution of (n, c, *spatial) with (c, o / groups, *kernel): the adjoint of `convolution`."""
    kernel, size = weight.shape[2:], input.shape[2:]
    rank = len(kernel)
    stride, dilation = spread(stride, rank), spread(dilation, rank)
    n, c = input.shape[:2]
    rows = input.reshape(n, groups, c // groups, -1)
    columns = weight.reshape(groups, c // groups, -1).swapaxes(1, 2) @ rows
    columns = columns.reshape(n, weight.shape[1] * groups, *kernel, *size)
    extra = spread(output_padding, rank)
    reach = [d * (k - 1) + 1 + e for k, d, e in zip(kernel, dilation, extra)]
    full = [(s - 1) * step + r for s, step, r in zip(size, stride, reach)]
    output = trim(fold(columns, full, stride, dilation), margins(padding, kernel, dilation))
    return output if bias is None else output + bias.reshape(-1, *(1,) * rank)


@kernel("gelu", "numpy")
def gelu(input, approximate="none"):
    """`input` times the normal distribution's cumulative share below it."""
    if approximate == "tanh":
        return 0.5 * input * (1 + np.tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))
    return 0.5 * input * (1 + erf(input / math.sqrt(2)))


@kernel("softmax", "numpy")
def softmax(input, axis=-1):
    """Exponentials that add up to 1 along `axis`."""
    weights = np.exp(input - input.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


@kernel("log_softmax", "numpy")
def log_softmax(input, axis=-1):
    """Logarithm of `softmax`."""
    shifted = input - input.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


@kernel("logsumexp", "numpy")
def logsumexp(input, axis=None, keepdims=False):
    """Logarithm of the sum of exponentials."""
    peak = input.max(axis=axis, keepdims=True)
    output = np.log(np.exp(input - peak).sum(axis=axis, keepdims=True)) + peak
    return output if keepdims else output.squeeze(axis)


@kernel("cholesky", "numpy")
def cholesky(input):
    """The lower triangle L with L L^T = `input`, of its symmetric part."""
    return np.linalg.cholesky((input + input.swapaxes(-1, -2)) / 2)


@kernel("sort", "numpy")
def sort(input, axis=-1, descending=False):
    """Values in order along `axis`."""
    output = np.sort(input, axis=axis)
    return np.flip(output, axis) if descending else output


@kernel("argsort", "numpy")
def argsort(input, axis=-1, descending=False):
    """Indices that sort `input` along `axis`, equal values in the order they came."""
    return np.argsort(-input if descending else input, axis=axis, kind="stable")


@kernel("topk", "numpy")
def topk(input, k, axis=-1, largest=True):
    """The `k` largest (or smallest) values along `axis`, in order, and their indices."""
    indices = np.take(argsort(input, axis, largest), np.arange(k), axis=axis)
    return np.take_along_axis(input, indices, axis), indices


@kernel("scatter_add", "numpy")
def scatter_add(input, index, updates, axis=0):
    """`input` with `updates` added at `index` along `axis`; repeated indices add up."""
    output = input.copy()
    np.add.at(output, placed(index, axis), updates[tuple(map(slice, index.shape))])
    return output


@kernel("scatter", "numpy")
def scatter(input, index, updates, axis=0):
    """`input` with the values at `index` along `axis` replaced by `updates`."""
    output = input.copy()
    output[placed(index, axis)] = updates[tuple(map(slice, index.shape))]
    return output


@kernel("slice_scatter", "numpy")
def slice_scatter(input, source, key):
    """`input` with the part `key` replaced by `source`."""
    output = input.copy()
    output[key] = source
    return output


# Random numbers


def generator(key):
    """NumPy's generator for a random key (2,) int32."""
    return np.random.default_rng(key.view(np.uint32))


@kernel("fold_key", "numpy")
def fold_key(key, index):
    """A new random key from `key` and the number `index`."""
    return np.random.SeedSequence([*key.view(np.uint32).tolist(), index]).generate_state(2).view(np.int32)


@kernel("rand", "numpy")
def rand(key, shape, dtype=np.float32):
    """Numbers from 0 to 1."""
    return generator(key).random(shape).astype(dtype)


@kernel("randn", "numpy")
def randn(key, shape, dtype=np.float32):
    """Numbers of mean 0 and variance 1."""
    return generator(key).standard_normal(shape).astype(dtype)


@kernel("dropout", "numpy")
def dropout(input, key, rate=0.5, training=True):
    """`input` with a share `rate` of its values zeroed and the rest scaled up; `key` decides which."""
    kept = generator(key).random(input.shape) >= rate
    return np.where(kept, input / (1 - rate), 0).astype(input.dtype)
