"""The MLX backend."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import ClassVar

import mlx.core as mx
import numpy as np

from mithril.backends.base import Arrays, Backend, P, R
from mithril.errors import BackendError
from mithril.types import Array, DType


class MlxBackend(Backend):
    """Runs generated source on MLX.

    Args:
        device: "cpu" or "gpu"; None is MLX's default.
    """

    name = "mlx"
    xp = "mx"
    imports = ("import itertools", "import math", "import mlx.core as mx", "import mlx.nn as nn")
    kernels = ("array", "mlx.kernels")
    lacking: ClassVar[Mapping[DType, str]] = {
        DType.float64: "MLX has no convolutions in float64, and rounds much of it to float32; use float32."
    }

    def open_device(self, device: str | None) -> mx.Device:
        if device not in (None, "cpu", "gpu"):
            raise BackendError(f"MLX has no device '{device}', only 'cpu' and 'gpu'.")
        return mx.default_device() if device is None else mx.Device(getattr(mx, device))

    def native(self, dtype: DType) -> mx.Dtype:
        return mx.bool_ if dtype is DType.bool else getattr(mx, dtype.value)

    def place(self, value: np.ndarray, dtype: DType) -> mx.array:
        value = value.astype(np.float32) if dtype is DType.bfloat16 else value.astype(dtype.value)
        return mx.array(value, dtype=self.native(dtype))

    def is_array(self, value: object) -> bool:
        return isinstance(value, mx.array)

    def to_numpy(self, value: mx.array) -> np.ndarray:
        return np.array(value.astype(mx.float32) if value.dtype == mx.bfloat16 else value)

    def lay_out(self, weight: mx.array) -> mx.array:
        """Channels last, the only order that MLX convolves in: its kernels' `moveaxis` then moves nothing."""
        with self.scope():
            return mx.moveaxis(mx.contiguous(mx.moveaxis(weight, 1, -1)), -1, 1)

    def scope(self) -> AbstractContextManager[object]:
        return mx.stream(self._device)

    def jit(self, function: Callable[P, R]) -> Callable[P, R]:
        return self.prepare(mx.compile(function))

    def vjp(
        self, function: Callable[[Arrays], Arrays], params: Arrays
    ) -> tuple[Arrays, Callable[[Arrays], dict[str, Array]]]:
        keys = [k for k, v in params.items() if mx.issubdtype(v.dtype, mx.floating)]
        outputs = self.prepare(function)(params)

        def pullback(grads: Arrays) -> dict[str, Array]:
            """MLX differentiates while it runs the function, so it runs again."""

            def chosen(*values: mx.array) -> list[mx.array]:
                made = function({**params, **dict(zip(keys, values))})
                return [made[k] for k in grads]

            seeds = [g.astype(outputs[k].dtype).reshape(outputs[k].shape) for k, g in grads.items()]
            _, found = self.prepare(mx.vjp)(chosen, [params[k] for k in keys], seeds)
            reached = dict(zip(keys, found))
            return {k: reached[k] if k in reached else mx.zeros_like(v) for k, v in params.items()}

        return outputs, pullback
