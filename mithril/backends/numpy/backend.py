"""The NumPy backend: the reference for values, with gradients written out in the generated source."""

from collections.abc import Callable

import numpy as np

from mithril.backends.base import Arrays, Backend, P, R
from mithril.errors import BackendError
from mithril.types import Array, DType


class NumpyBackend(Backend):
    """Runs generated source on NumPy."""

    name = "numpy"
    xp = "np"
    imports = ("import itertools", "import math", "import numpy as np")
    kernels = ("array", "numpy.kernels", "numpy.gradients")

    def open_device(self, device: str | None) -> None:
        if device not in (None, "cpu"):
            raise BackendError(f"NumPy has no device '{device}', only 'cpu'.")

    def native(self, dtype: DType) -> np.dtype:
        if dtype is DType.bfloat16:
            raise BackendError("NumPy has no bfloat16; use float32 or float16.")
        return np.dtype(dtype.value)

    def place(self, value: np.ndarray, dtype: DType) -> np.ndarray:
        return np.array(value, dtype=self.native(dtype))

    def is_array(self, value: object) -> bool:
        return isinstance(value, np.ndarray | np.generic)

    def to_numpy(self, value: np.ndarray) -> np.ndarray:
        return np.asarray(value)

    def jit(self, function: Callable[P, R]) -> Callable[P, R]:
        """NumPy compiles nothing."""
        return function

    def vjp(
        self, function: Callable[[Arrays], Arrays], params: Arrays
    ) -> tuple[Arrays, Callable[[Arrays], dict[str, Array]]]:
        """Not there: a compiled model's gradients on NumPy are part of its generated source."""
        raise BackendError(
            "NumPy cannot differentiate a function; compile a model and call `evaluate_gradients`, "
            "whose source comes from the operators' gradient rules."
        )
