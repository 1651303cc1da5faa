"""Vector-Jacobian products on NumPy, for the operators whose gradient is more than an expression.

Each takes the output's gradient, the operator's inputs, its output and its attributes, and returns one gradient (or
None) per tensor input. These sources are pasted into generated modules.
"""

import math

import numpy as np

from mithril.backends.numpy.kernels import erf, fold, margins, spread, trim, unfold, widen
from mithril.ops.linalg import einsum_terms
from mithril.ops.table import gradient_kernel


@gradient_kernel("unbroadcast unbroadcast")
def unbroadcast(grad, shape):
    """`grad` summed over the axes along which an operand of `shape` was broadcast."""
    extra = grad.ndim - len(shape)
    axes = [a for a in range(grad.ndim) if a < extra or (shape[a - extra] == 1 and grad.shape[a] != 1)]
    return grad.sum(axis=tuple(axes)).reshape(shape) if axes else grad


@gradient_kernel("conv1d conv2d conv3d")
def convolution_gradient(grad, input, weight, bias, output, stride=1, padding=0, dilation=1, groups=1):
    """Gradients of `convolution` for input, weight and bias."""
    kernel = weight.shape[2:]
    rank, n = len(kernel), input.shape[0]
    stride, dilation = spread(stride, rank), spread(dilation, rank)
    margin = margins(padding, kernel, dilation)
    wide = widen(input, margin)
    columns = unfold(wide, kernel, stride, dilation, groups)
    rows = grad.reshape(n, groups, weight.shape[0] // groups, -1)
    weight_grad = (rows @ columns.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape)
    folded = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2) @ rows
    folded = folded.reshape(n, input.shape[1], *kernel, *grad.shape[2:])
    input_grad = trim(fold(folded, wide.shape[2:], stride, dilation), margin)
    return input_grad, weight_grad, None if bias is None else grad.sum(axis=(0, *range(2, grad.ndim)))


@gradient_kernel("conv_transpose1d conv_transpose2d conv_transpose3d")
def conv_transpose_gradient(
    grad, input, weight, bias, output, stride=1, padding=0, output_padding=0, dilation=1, groups=1
):
    """Gradients of `conv_transpose` for input, weight and bias; the output padding only enlarges `grad`."""
    kernel, size = weight.shape[2:], input.shape[2:]
    rank = len(kernel)
    stride, dilation = spread(stride, rank), spread(dilation, rank)
    wide = widen(grad, margins(padding, kernel, dilation))
    used = [(s - 1) * step + d * (k - 1) + 1 for s, step, d, k in zip(size, stride, dilation, kernel)]
    wide = wide[(..., *(slice(u) for u in used))]
    columns = unfold(wide, kernel, stride, dilation, groups)
    n, c = input.shape[:2]
    matrix = weight.reshape(groups, c // groups, -1)
    rows = input.reshape(n, groups, c // groups, -1)
    weight_grad = (rows @ columns.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape)
    bias_grad = None if bias is None else grad.sum(axis=(0, *range(2, grad.ndim)))
    return (matrix @ columns).reshape(input.shape), weight_grad, bias_grad


@gradient_kernel("linear")
def linear_gradient(grad, input, weight, bias, output):
    """Gradients of `linear` for input, weight and bias."""
    rows = grad.reshape(-1, weight.shape[0])
    bias_grad = None if bias is None else rows.sum(axis=0)
    return grad @ weight, rows.T @ input.reshape(-1, weight.shape[1]), bias_grad


@gradient_kernel("matmul")
def matmul_gradient(grad, left, right, output=None):
    """Gradients of `left @ right`, with the promotion of vectors and the broadcasting of batches undone."""
    if left.ndim == 1 and right.ndim == 1:
        return grad * right, grad * left
    if left.ndim == 1:
        grads = matmul_gradient(grad[..., None, :], left[None, :], right)
        return grads[0].reshape(left.shape), grads[1]
    if right.ndim == 1:
        grads = matmul_gradient(grad[..., None], left, right[:, None])
        return grads[0], grads[1].reshape(right.shape)
    left_grad = grad @ right.swapaxes(-1, -2)
    right_grad = left.swapaxes(-1, -2) @ grad
    return unbroadcast(left_grad, left.shape), unbroadcast(right_grad, right.shape)


@gradient_kernel("einsum")
def einsum_gradient(grad, operands, output, equation):
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
    return (grads,)


@gradient_kernel("solve")
def solve_gradient(grad, left, right, output):
    """Gradients of `solve` for both sides."""
    right_grad = np.linalg.solve(left.swapaxes(-1, -2), grad)
    left_grad = -right_grad @ output.swapaxes(-1, -2)
    return unbroadcast(left_grad, left.shape), unbroadcast(right_grad, right.shape)


@gradient_kernel("cholesky")
def cholesky_gradient(grad, input, output):
    """Gradient of `cholesky` (Murray, "Differentiation of the Cholesky decomposition", 2016, Eq. 10)."""
    inner = np.tril(output.swapaxes(-1, -2) @ grad) * (1 - 0.5 * np.eye(output.shape[-1], dtype=output.dtype))
    half = np.linalg.solve(output.swapaxes(-1, -2), inner)
    whole = np.linalg.solve(output.swapaxes(-1, -2), half.swapaxes(-1, -2)).swapaxes(-1, -2)
    return ((whole + whole.swapaxes(-1, -2)) / 2,)


@gradient_kernel("layer_norm")
def layer_norm_gradient(grad, input, weight=None, bias=None, output=None, dims=1, eps=1e-5):
    """Gradients of `layer_norm` for input, weight and bias."""
    axes = tuple(range(input.ndim - dims, input.ndim))
    center = input - input.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt(np.mean(center**2, axis=axes, keepdims=True) + eps)
    normal = center * scale
    inner = grad if weight is None else grad * weight
    inner = inner - inner.mean(axis=axes, keepdims=True)
    inner = scale * (inner - normal * np.mean(inner * normal, axis=axes, keepdims=True))
    rows = tuple(range(input.ndim - dims))
    weight_grad = None if weight is None else (grad * normal).sum(axis=rows)
    return inner, weight_grad, None if bias is None else grad.sum(axis=rows)


@gradient_kernel("rms_norm")
def rms_norm_gradient(grad, input, weight, output, eps=1e-6):
    """Gradients of `rms_norm` for input and weight."""
    scale = 1 / np.sqrt(np.mean(input**2, axis=-1, keepdims=True) + eps)
    normal = input * scale
    inner = grad if weight is None else grad * weight
    inner = scale * (inner - normal * np.mean(inner * normal, axis=-1, keepdims=True))
    rows = tuple(range(input.ndim - 1))
    return inner, None if weight is None else (grad * normal).sum(axis=rows)


@gradient_kernel("group_norm")
def group_norm_gradient(grad, input, weight, bias, output, num_groups, eps=1e-5):
    """Gradients of `group_norm` for input, weight and bias."""
    n, c = input.shape[:2]
    wide = (1, c, *(1,) * (input.ndim - 2))
    inner = grad if weight is None else grad * weight.reshape(wide)
    normal = input.reshape(n, num_groups, -1)
    normal = normal - normal.mean(axis=-1, keepdims=True)
    normal = normal / np.sqrt(np.mean(normal**2, axis=-1, keepdims=True) + eps)
    input_grad = layer_norm_gradient(inner.reshape(normal.shape), input.reshape(normal.shape), eps=eps)[0]
    rows = (0, *range(2, input.ndim))
    weight_grad = None if weight is None else (grad * normal.reshape(input.shape)).sum(axis=rows)
    return input_grad.reshape(input.shape), weight_grad, None if bias is None else grad.sum(axis=rows)


@gradient_kernel("batch_norm")
def batch_norm_gradient(grad, input, mean, var, weight, bias, output, eps=1e-5):
    """Gradients of `batch_norm` for input, mean, variance, weight and bias."""
    wide, rows = (1, -1, *(1,) * (input.ndim - 2)), (0, *range(2, input.ndim))
    scale = 1 / np.sqrt(var + eps)
    normal = (input - mean.reshape(wide)) * scale.reshape(wide)
    inner = grad if weight is None else grad * weight.reshape(wide)
    mean_grad = -inner.sum(axis=rows) * scale
    var_grad = -0.5 * (inner * normal).sum(axis=rows) * scale**2
    weight_grad = None if weight is None else (grad * normal).sum(axis=rows)
    return inner * scale.reshape(wide), mean_grad, var_grad, weight_grad, None if bias is None else grad.sum(axis=rows)


@gradient_kernel("batch_norm_training")
def batch_norm_training_gradient(grads, input, mean, var, weight, bias, outputs, momentum=0.1, eps=1e-5):
    """Gradients of `batch_norm_training` for input, weight and bias; the running statistics carry none."""
    grad = grads[0]
    wide, rows = (1, -1, *(1,) * (input.ndim - 2)), (0, *range(2, input.ndim))
    center = input - input.mean(axis=rows, keepdims=True)
    scale = 1 / np.sqrt(np.mean(center**2, axis=rows, keepdims=True) + eps)
    normal = center * scale
    inner = grad if weight is None else grad * weight.reshape(wide)
    inner = inner - inner.mean(axis=rows, keepdims=True)
    inner = scale * (inner - normal * np.mean(inner * normal, axis=rows, keepdims=True))
    weight_grad = None if weight is None else (grad * normal).sum(axis=rows)
    return inner, None, None, weight_grad, None if bias is None else grad.sum(axis=rows)


@gradient_kernel("scaled_dot_product_attention")
def attention_gradient(grad, query, key, value, mask, output, is_causal=False, scale=None):
    """Gradients of `scaled_dot_product_attention` for query, key, value and an additive mask."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ key.swapaxes(-1, -2) * scale
    if is_causal:
        mask = np.tri(query.shape[-2], key.shape[-2], dtype=bool)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    peak = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(peak == -np.inf, 0, peak))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    weights_grad = grad @ value.swapaxes(-1, -2)
    scores_grad = weights * (weights_grad - (weights_grad * weights).sum(axis=-1, keepdims=True))
    query_grad = unbroadcast(scores_grad @ key * scale, query.shape)
    key_grad = unbroadcast(scores_grad.swapaxes(-1, -2) @ query * scale, key.shape)
    value_grad = unbroadcast(weights.swapaxes(-1, -2) @ grad, value.shape)
    mask_grad = None if mask is None or mask.dtype == bool else unbroadcast(scores_grad, mask.shape)
    return query_grad, key_grad, value_grad, mask_grad


@gradient_kernel("embedding")
def embedding_gradient(grad, index, weight, output):
    """Gradient of `weight[index]` for `weight`."""
    weight_grad = np.zeros_like(weight)
    np.add.at(weight_grad, index, grad)
    return None, weight_grad


@gradient_kernel("cross_entropy")
def cross_entropy_gradient(grad, input, target, output, label_smoothing=0.0, ignore_index=-100):
    """Gradient of `cross_entropy` for the logits: probabilities minus the wanted distribution."""
    weights = np.exp(input - input.max(axis=1, keepdims=True))
    weights = weights / weights.sum(axis=1, keepdims=True)
    known = target != ignore_index
    classes = np.arange(input.shape[1]).reshape(-1, *(1,) * (target.ndim - 1))
    wanted = (np.expand_dims(target, 1) == classes) * (1 - label_smoothing) + label_smoothing / input.shape[1]
    return (weights - wanted) * np.expand_dims(grad * known, 1), None


@gradient_kernel("prelu")
def prelu_gradient(grad, input, weight, output):
    """Gradients of `prelu` for input and weight."""
    slope = weight.reshape(-1, *(1,) * (input.ndim - 2))
    rows = (0, *range(2, input.ndim))
    return np.where(input > 0, grad, slope * grad), np.where(input > 0, 0, input * grad).sum(axis=rows)


@gradient_kernel("gelu")
def gelu_gradient(grad, input, output, approximate="none"):
    """Gradient of `gelu`."""
    if approximate == "tanh":
        root = math.sqrt(2 / math.pi)
        bend = np.tanh(root * (input + 0.044715 * input**3))
        slope = 0.5 * (1 + bend) + 0.5 * input * (1 - bend**2) * root * (1 + 3 * 0.044715 * input**2)
    else:
        slope = 0.5 * (1 + erf(input / math.sqrt(2)))
        slope = slope + input * np.exp(-0.5 * input**2) / math.sqrt(2 * math.pi)
    return (grad * slope,)


@gradient_kernel("pixel_shuffle")
def pixel_shuffle_gradient(grad, input, output, factor):
    """Gradient of `pixel_shuffle`."""
    *lead, c, h, w = output.shape
    count = len(lead)
    parts = grad.reshape(*lead, c, h // factor, factor, w // factor, factor)
    order = (*range(count + 1), count + 2, count + 4, count + 1, count + 3)
    return (np.transpose(parts, order).reshape(input.shape),)
