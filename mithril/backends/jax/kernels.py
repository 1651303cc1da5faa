"""JAX kernels. Their sources are pasted into generated modules; they use `jax`, `jnp`, `lax`, `math` and each other."""

import jax
import jax.numpy as jnp
from jax import lax


def topk(input, k, axis=-1, largest=True):
    """The `k` largest (or smallest) values along `axis`, in order, and their indices."""
    values, indices = lax.top_k(jnp.moveaxis(input if largest else -input, axis, -1), k)
    values = values if largest else -values
    return jnp.moveaxis(values, -1, axis), jnp.moveaxis(indices, -1, axis)


def magnitude(input):
    """|input|, whose gradient at 0 is 0."""
    return jnp.where(input == 0, 0, jnp.abs(input)).astype(input.dtype)


def running(input, extremum, axis):
    """The largest or smallest value so far; the last of equal ones has the gradient."""
    axis = axis % input.ndim
    places = lax.broadcasted_iota(jnp.int32, input.shape, axis)
    last = lax.cummax(jnp.where(input == extremum(input, axis=axis), places, 0), axis=axis)
    return jnp.take_along_axis(input, last, axis=axis)


def fixed(values):
    """Values that have no gradient."""
    return lax.stop_gradient(values)


def logaddexp(left, right):
    """log(exp(left) + exp(right)); the derivative of JAX's own is 1 to a value that an infinite one hides."""
    gap = jnp.where(left == right, 0, right - left)  # of two infinities too
    return jnp.maximum(left, right) + jnp.log1p(jnp.exp(-abs(gap)))


def prng(key):
    """JAX's random key for a key (2,) int32."""
    return jax.random.wrap_key_data(lax.bitcast_convert_type(key, jnp.uint32))


def uniform(key, shape, dtype=jnp.float32):
    """Numbers from 0 to 1."""
    return jax.random.uniform(prng(key), shape, dtype)
