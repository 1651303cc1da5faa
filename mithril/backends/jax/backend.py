"""The JAX backend."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mithril.backends.base import Arrays, Backend, P, R
from mithril.errors import BackendError
from mithril.types import Array, DType


class JaxBackend(Backend):
    """Runs generated source on JAX.

    Args:
        dtype: with float64 the backend's functions run in JAX's 64-bit mode, without changing the process's.
        device: a platform ("cpu", "gpu", "tpu") or one of its devices ("cpu:3").
        device_mesh: arrays get a named sharding. `XLA_FLAGS=--xla_force_host_platform_device_count=8` simulates
            eight devices on a CPU.
    """

    name = "jax"
    xp = "jnp"
    imports = ("import itertools", "import math", "import jax", "import jax.numpy as jnp", "from jax import lax")
    kernels = ("array", "jax.kernels")

    def open_device(self, device: str | None) -> jax.Device | None:
        if device is None:
            return None
        platform, _, number = device.partition(":")
        try:
            return jax.devices(platform)[int(number or 0)]
        except (RuntimeError, IndexError, ValueError) as error:
            there = ", ".join(f"'{d.platform}:{d.id}'" for d in jax.devices())
            raise BackendError(f"JAX has no device '{device}'; there are {there}.") from error

    def scope(self) -> AbstractContextManager[object] | None:
        return jax.enable_x64(True) if self.dtype is DType.float64 else None

    def native(self, dtype: DType) -> np.dtype:
        return jnp.dtype(dtype.value)

    def place(self, value: np.ndarray, dtype: DType) -> jax.Array:
        """Without the 64-bit mode, 64-bit numbers become 32-bit ones."""
        return self._put(value, dtype, self._device)

    def _put(self, value: np.ndarray, dtype: DType, where: object) -> jax.Array:
        with self.scope() or nullcontext():
            narrow = jax.dtypes.canonicalize_dtype(self.native(dtype))
            if narrow.itemsize < value.dtype.itemsize and dtype.is_integer and value.size:
                limits = np.iinfo(narrow)
                if value.min() < limits.min or value.max() > limits.max:
                    worst = value.max() if value.max() > limits.max else value.min()
                    raise BackendError(f"{worst} does not fit JAX's {narrow}; use JaxBackend(dtype='float64').")
            return jax.device_put(value.astype(jax.dtypes.canonicalize_dtype(self.native(dtype))), where)

    def open_mesh(self) -> jax.sharding.Mesh:
        found = jax.devices(None if self.device is None else self.device.split(":")[0])
        sizes = tuple(self.mesh_axes.values())
        count = math.prod(sizes)
        if count > len(found):
            raise BackendError(f"device_mesh {sizes} needs {count} devices, there are {len(found)}.")
        return jax.sharding.Mesh(np.array(found[:count]).reshape(sizes), tuple(self.mesh_axes))

    def spread(self, value: np.ndarray, dtype: DType, cuts: Sequence[str | None]) -> jax.Array:
        return self._put(value, dtype, jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(*cuts)))

    def placed_like(self, values: Arrays, models: Arrays) -> dict[str, Array]:
        with self.scope() or nullcontext():
            return {k: jax.device_put(v, models[k].sharding) if k in models else v for k, v in values.items()}

    def is_array(self, value: object) -> bool:
        return isinstance(value, jax.Array)

    def to_numpy(self, value: jax.Array) -> np.ndarray:
        return np.asarray(value.astype(jnp.float32) if value.dtype == jnp.bfloat16 else value)

    def jit(self, function: Callable[P, R]) -> Callable[P, R]:
        return self.prepare(jax.jit(function))

    def vjp(
        self, function: Callable[[Arrays], Arrays], params: Arrays
    ) -> tuple[Arrays, Callable[[Arrays], dict[str, Array]]]:
        floating = {k: v for k, v in params.items() if jnp.issubdtype(v.dtype, jnp.floating)}
        fixed = {k: v for k, v in params.items() if k not in floating}
        outputs, back = self.prepare(jax.vjp)(lambda values: dict(function({**fixed, **values})), floating)

        def pullback(grads: Arrays) -> dict[str, Array]:
            (found,) = back({k: _cotangent(v, grads.get(k)) for k, v in outputs.items()})
            return {k: found[k] if k in found else jnp.zeros_like(v) for k, v in params.items()}

        return outputs, self.prepare(pullback)


def _cotangent(output: jax.Array, grad: jax.Array | None) -> Any:
    """A gradient of the output's kind: integers have none."""
    if not jnp.issubdtype(output.dtype, jnp.floating):
        return np.zeros(output.shape, jax.dtypes.float0)
    return jnp.zeros_like(output) if grad is None else jnp.asarray(grad, output.dtype).reshape(output.shape)
