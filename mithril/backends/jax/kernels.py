"""JAX kernels. Their sources are pasted into generated modules; they use `jax`, `jnp`, `lax`, `math` and each other."""

import jax
import jax.numpy as jnp
from jax import lax

from mithril.backends.array import per_axis, placed, pool_members, pool_plan, slide
from mithril.ops.table import kernel


def margins(padding, rank):
    """Rows of padding (before, after) per axis, or lax's word for them."""
    if isinstance(padding, str):
        return padding.upper()
    return [(p, p) if isinstance(p, int) else tuple(p) for p in per_axis(padding, rank)]


@kernel("conv_transpose1d conv_transpose2d conv_transpose3d", "jax")
def conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Transposed convolution of (n, c, *spatial) with (c, o / groups, *kernel): a flipped kernel, a dilated input."""
    rank, (c, o) = weight.ndim - 2, weight.shape[:2]
    dilations = per_axis(dilation, rank)
    parts = weight.reshape(groups, c // groups, o, *weight.shape[2:]).swapaxes(1, 2)
    parts = jnp.flip(parts.reshape(groups * o, c // groups, *weight.shape[2:]), tuple(range(2, rank + 2)))
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilations)]
    extra = per_axis(output_padding, rank)
    sides = zip(margins(padding, rank), reach, extra)
    output = lax.conv_general_dilated(
        input,
        parts,
        (1,) * rank,
        [(r - before, r - after + e) for (before, after), r, e in sides],
        lhs_dilation=per_axis(stride, rank),
        rhs_dilation=dilations,
        feature_group_count=groups,
    )
    return output if bias is None else output + bias.reshape(-1, *(1,) * rank)


@kernel("max_pool1d max_pool2d max_pool3d", "jax")
def max_pool(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Largest value of each window of (n, c, *spatial)."""
    plan = pool_plan(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    kernel, strides, before, after, dilations, counts = zip(*plan)
    margin = ((0, 0), (0, 0), *zip(before, after))
    if max(dilations) == 1:
        return lax.reduce_window(input, -jnp.inf, lax.max, (1, 1, *kernel), (1, 1, *strides), margin)
    input = jnp.pad(input, margin, constant_values=-jnp.inf)  # lax cannot differentiate dilated windows
    for axis, (k, s, d, count) in enumerate(zip(kernel, strides, dilations, counts), 2):
        input = slide(jnp.maximum, input, axis, k, s, d, count)
    return input


@kernel("avg_pool1d avg_pool2d avg_pool3d", "jax")
def avg_pool(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean of each window of (n, c, *spatial)."""
    plan = pool_plan(input.shape, kernel_size, stride, padding, 1, ceil_mode)
    kernel, strides, before, after, _, _ = zip(*plan)
    margin = ((0, 0), (0, 0), *zip(before, after))
    output = lax.reduce_window(input, 0.0, lax.add, (1, 1, *kernel), (1, 1, *strides), margin)
    for axis, (k, s, p, _, _, count) in enumerate(plan, 2):
        members = pool_members(input.shape[axis], k, s, p, count, count_include_pad)
        divisor = jnp.array(members, dtype=input.dtype)
        output = output / divisor.reshape(-1, *(1,) * (input.ndim - 1 - axis))
    return output


@kernel("sort", "jax")
def sort(input, axis=-1, descending=False):
    """Values in order along `axis`."""
    return jnp.sort(input, axis=axis, descending=descending)


@kernel("argsort", "jax")
def argsort(input, axis=-1, descending=False):
    """Indices that sort `input` along `axis`, equal values in the order they came."""
    return jnp.argsort(input, axis=axis, descending=descending, stable=True)


@kernel("topk", "jax")
def topk(input, k, axis=-1, largest=True):
    """The `k` largest (or smallest) values along `axis`, in order, and their indices."""
    values, indices = lax.top_k(jnp.moveaxis(input if largest else -input, axis, -1), k)
    values = values if largest else -values
    return jnp.moveaxis(values, -1, axis), jnp.moveaxis(indices, -1, axis)


@kernel("scatter", "jax")
def scatter(input, index, updates, axis=0):
    """`input` with the values at `index` along `axis` replaced by `updates`."""
    return input.at[placed(index, axis)].set(updates[tuple(map(slice, index.shape))])


def prng(key):
    """JAX's random key for a key (2,) int32."""
    return jax.random.wrap_key_data(lax.bitcast_convert_type(key, jnp.uint32))


@kernel("fold_key", "jax")
def fold_key(key, index):
    """A new random key from `key` and the number `index`."""
    data = jax.random.key_data(jax.random.fold_in(prng(key), index))
    return lax.bitcast_convert_type(data, jnp.int32)


@kernel("rand", "jax")
def rand(key, shape, dtype=jnp.float32):
    """Numbers from 0 to 1."""
    return jax.random.uniform(prng(key), shape, dtype)


@kernel("randn", "jax")
def randn(key, shape, dtype=jnp.float32):
    """Numbers of mean 0 and variance 1."""
    return jax.random.normal(prng(key), shape, dtype)


@kernel("dropout", "jax")
def dropout(input, key, rate=0.5, training=True):
    """`input` with a share `rate` of its values zeroed and the rest scaled up; `key` decides which."""
    kept = jax.random.bernoulli(prng(key), 1 - rate, input.shape)
    return jnp.where(kept, input / (1 - rate), 0)
