"""NumPy kernels: the error function, convolution by windows and one matrix product, sorting, random numbers.

These sources are pasted into generated modules; they use `np`, `math` and each other.

Dims: n batch, c channels, o output channels, k kernel positions.
"""

import math

import numpy as np

from mithril.backends.array import windows


def ratio(top, bottom, x):
    """Quotient of two polynomials with these coefficients, the highest power first."""
    return np.polyval(np.array(top, x.dtype), x) / np.polyval(np.array(bottom, x.dtype), x)


def erf(x):
    """Error function, by W. J. Cody's rational approximations (Math. Comp. 23, 1969; netlib specfun CALERF).

    Relative error below 1e-15 in float64.
    """
    a = (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2)
    b = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
    c = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1)
    c += (2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3)
    d = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3)
    d += (3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3)
    p = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1)
    p += (1.60837851487422766e-2, 6.58749161529837803e-4)
    q = (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2)
    size = np.abs(x if x.dtype == np.float64 else x.astype(np.float32))
    inverse = 1 / np.square(np.maximum(size, 4.0))
    inner = size * ratio((*a, 3.20937758913846947e3), b, np.square(np.minimum(size, 0.46875)))
    tail = ratio((*c, 1.23033935479799725e3), d, np.clip(size, 0.46875, 4.0))
    far = inverse * ratio(p, (*q, 2.33520497626869185e-3), inverse)
    tail = np.where(size <= 4.0, tail, (1 / math.sqrt(math.pi) - far) / np.maximum(size, 4.0))
    outer = np.where(size <= 0.46875, inner, 1 - np.exp(-np.square(size)) * tail)
    return (np.sign(x) * outer).astype(x.dtype)


def convolution(input, weight, stride=(1, 1, 1), padding=(), dilation=(1, 1, 1), groups=1):
    """Convolution of (n, c, *spatial) with (o, c / groups, *kernel), by one matrix product."""
    input = np.pad(input, ((0, 0), (0, 0), *padding)) if padding else input
    columns = windows(input, weight.shape[2:], stride, dilation)
    output = weight.reshape(groups, len(weight) // groups, -1) @ columns.reshape(len(input), groups, weight[0].size, -1)
    return output.reshape(len(input), len(weight), *columns.shape[3:])


def fold(columns, kernel, size, stride, padding, dilation):
    """Windows (n, c, k, *out) added at their places of (n, c, *size): the adjoint of `windows` of a padded input."""
    full = [before + axis + after for axis, (before, after) in zip(size, padding)]
    output = np.zeros((*columns.shape[:2], *full), columns.dtype)
    for index, offset in enumerate(np.ndindex(*kernel)):
        settings = zip(offset, columns.shape[3:], stride, dilation)
        place = [slice(at * d, at * d + s * (out - 1) + 1, s) for at, out, s, d in settings]
        output[(..., *place)] += columns[:, :, index]
    return output[(..., *(slice(before, before + axis) for axis, (before, _) in zip(size, padding)))]


def convolution_adjoint(grad, weight, size, stride, padding, dilation, groups):
    """Transposed convolution, (n, o, *out) to (n, c, *size): what goes back through `convolution` with this weight."""
    kernel, rows = weight.shape[2:], grad.reshape(len(grad), groups, len(weight) // groups, -1)
    columns = weight.reshape(groups, len(weight) // groups, -1).swapaxes(1, 2) @ rows
    columns = columns.reshape(len(grad), -1, math.prod(kernel), *grad.shape[2:])
    return fold(columns, kernel, size, stride, padding, dilation)


def softmax(input, axis=-1):
    """Exponentials that add up to 1 along `axis`."""
    weights = np.exp(input - input.max(axis=axis, keepdims=True, initial=-np.inf))
    return weights / weights.sum(axis=axis, keepdims=True)


def logsumexp(input, axis=None, keepdims=False):
    """Logarithm of the sum of exponentials."""
    peak = input.max(axis=axis, keepdims=True, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, 0).astype(input.dtype)
    output = np.log(np.exp(input - peak).sum(axis=axis, keepdims=True)) + peak
    return output if keepdims else output.squeeze(axis)


def argsort(input, axis=-1, descending=False):
    """Indices that sort `input` along `axis`, equal values in the order they came."""
    return np.argsort(-input if descending else input, axis=axis, kind="stable")


def added(input, place, values):
    """`input` with `values` added at `place`; what falls on one place twice adds up."""
    output = input.copy()
    np.add.at(output, place, values)
    return output


def generator(key):
    """NumPy's generator for a random key (2,) int32."""
    return np.random.default_rng(key.view(np.uint32))


def uniform(key, shape, dtype=np.float32):
    """Numbers from 0 to 1."""
    return generator(key).random(shape).astype(dtype)


def fold_key(key, index):
    """A new random key from `key` and the number `index`."""
    return np.random.SeedSequence([*key.view(np.uint32).tolist(), index]).generate_state(2).view(np.int32)
