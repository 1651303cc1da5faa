"""What every backend can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from functools import wraps
from importlib import import_module
from types import FunctionType
from typing import Any, ClassVar, ParamSpec, TypeVar

import numpy as np

from mithril.errors import BackendError, nearest
from mithril.ops.table import HELPERS
from mithril.types import Array, DType, as_dtype

P = ParamSpec("P")
R = TypeVar("R")

Arrays = Mapping[str, Any]
Mesh = Sequence[int] | Mapping[str, int] | None


class Backend(ABC):
    """Arrays, devices, compilation and gradients of one framework.

    Args:
        dtype: floating type of arrays that are made without one, and of parameters.
        device: the framework's name of the device; None is its default.
        seed: start of the random numbers of `rand`, `randn` and `randint`, which are the same on every backend.
        device_mesh: axes of a mesh of devices, `{"data": 2, "model": 4}`, or their sizes alone. Arrays are then placed
            on all devices: `array(..., shard=)` and `shard` say what is cut along which axis.

    Raises:
        BackendError: the framework lacks the dtype, the device, or meshes; there are fewer devices than the mesh needs.
    """

    name: ClassVar[str]
    xp: ClassVar[str]
    """The word that generated source uses for the framework's array functions."""
    imports: ClassVar[tuple[str, ...]]
    """Import lines of generated modules; each needs only those that it uses."""
    kernels: ClassVar[tuple[str, ...]]
    """Modules whose kernels its generated source may use."""
    lacking: ClassVar[Mapping[DType, str]] = {}
    """Floating types that the framework does not compute in, and what to do instead."""

    def __init__(
        self, dtype: object = DType.float32, device: str | None = None, seed: int = 0, device_mesh: Mesh = None
    ):
        for module in self.kernels:
            for name, function in vars(import_module(f"mithril.backends.{module}")).items():
                if isinstance(function, FunctionType) and function.__module__.startswith("mithril."):
                    HELPERS[self.name, name] = HELPERS[self.xp, name] = function
        self.dtype = as_dtype(dtype)
        if not self.dtype.is_floating:
            raise BackendError(f"dtype {self.dtype} must be a floating type such as float32.")
        if self.dtype in self.lacking:
            raise BackendError(self.lacking[self.dtype])
        self.native(self.dtype)
        self.device, self._device = device, self.open_device(device)
        self.set_seed(seed)
        named = device_mesh if isinstance(device_mesh, Mapping) else enumerate(device_mesh or ())
        self.mesh_axes = {k if isinstance(k, str) else f"axis{k}": int(n) for k, n in dict(named).items()}
        self.mesh: Any = self.open_mesh() if device_mesh else None

    def __repr__(self) -> str:
        device = "" if self.device is None else f", device={str(self.device)!r}"
        return f"{type(self).__name__}(dtype={self.dtype}{device})"

    @abstractmethod
    def open_device(self, device: str | None) -> Any:
        """The framework's own device of this name."""

    # Arrays

    @abstractmethod
    def native(self, dtype: DType) -> Any:
        """The framework's own dtype object."""

    @abstractmethod
    def place(self, value: np.ndarray, dtype: DType) -> Array:
        """A NumPy array as the framework's, on this backend's device."""

    @abstractmethod
    def is_array(self, value: object) -> bool:
        """Whether `value` is an array of this framework."""

    @abstractmethod
    def to_numpy(self, value: Any) -> np.ndarray:
        """A NumPy array with the same values; bfloat16 becomes float32."""

    def array(self, value: Any, dtype: object = None, shard: Sequence[str | int | None] | None = None) -> Array:
        """Numbers, lists, NumPy arrays, or arrays of this framework, as an array here.

        Floating values take the backend's dtype unless `dtype` says another; integers and bools keep theirs.
        `shard` says for each axis of the array which mesh axis it is cut along: a name, a number or None, not cut.

        Raises:
            BackendError: no mesh, an unknown mesh axis, or a size that is no multiple of it.
        """
        values = self.to_numpy(value) if self.is_array(value) else np.asarray(value)
        if dtype is None:
            found = as_dtype(values.dtype)
            dtype = self.dtype if found.is_floating else found
        cuts = () if shard is None else self._cuts(values.shape, shard)
        return self.place(values, as_dtype(dtype)) if self.mesh is None else self.spread(values, as_dtype(dtype), cuts)

    # Meshes

    def open_mesh(self) -> object:
        """The framework's mesh with the axes of `mesh_axes`."""
        raise BackendError(f"{type(self).__name__} has no device meshes; JaxBackend and TorchBackend have.")

    def spread(self, value: np.ndarray, dtype: DType, cuts: Sequence[str | None]) -> Array:
        """A NumPy array on all devices of the mesh, its first axes cut along the mesh axes `cuts`."""
        raise NotImplementedError

    def placed_like(self, values: Arrays, models: Arrays) -> dict[str, Array]:
        """`values`, cut as the arrays of the same keys in `models` are."""
        return dict(values)

    def shard(self, values: Arrays, rules: Mapping[str, Sequence[str | int | None]]) -> dict[str, Array]:
        """`values` on the mesh, each cut as the first rule whose pattern fits its key says; the others are copied.

        Args:
            rules: what `array` takes as `shard`, by key or pattern: `{"blocks_*_mlp_fc1_weight": ("model", None)}`.

        Raises:
            BackendError: as from `array`, with the key; a rule that fits no key.
        """
        for pattern in rules:
            if not any(fnmatchcase(key, pattern) for key in values):
                raise BackendError(f"The shard rule '{pattern}' fits no key.{nearest(pattern, values)}")
        placed = {}
        for key, value in values.items():
            rule = next((rule for pattern, rule in rules.items() if fnmatchcase(key, pattern)), None)
            try:
                placed[key] = self.array(value, shard=rule)
            except BackendError as error:
                raise BackendError(f"'{key}' cannot be sharded: {error}") from None
        return placed

    def _cuts(self, shape: tuple[int, ...], shard: Sequence[str | int | None]) -> list[str | None]:
        """The mesh axes by name, checked against an array's shape."""
        if self.mesh is None:
            raise BackendError(f"shard {tuple(shard)} needs a {type(self).__name__} with a device_mesh.")
        if len(shard) > len(shape):
            raise BackendError(f"shard {tuple(shard)} speaks of {len(shard)} axes, the shape is {shape}.")
        names = list(self.mesh_axes)
        cuts: list[str | None] = []
        for size, axis in zip(shape, shard):
            name = names[axis] if isinstance(axis, int) and 0 <= axis < len(names) else axis
            if name is not None and name not in names:
                there = ", ".join(f"'{n}'" for n in names)
                hint = nearest(name, names) if isinstance(name, str) else ""
                raise BackendError(f"The mesh has no axis {name!r}, only {there}.{hint}")
            if name is not None and name in cuts:
                raise BackendError(f"shard {tuple(shard)} cuts two axes along '{name}'.")
            if name is not None and size % self.mesh_axes[name]:
                raise BackendError(
                    f"Axis {len(cuts)} of shape {shape} cannot be cut into {self.mesh_axes[name]} equal parts, "
                    f"the size of the mesh axis '{name}'."
                )
            cuts.append(name)
        return cuts

    def shape_of(self, value: Array) -> tuple[int, ...]:
        """The shape as plain integers."""
        return tuple(int(size) for size in value.shape)

    def dtype_of(self, value: Array) -> DType:
        """The element type."""
        return as_dtype(value.dtype)

    def zeros(self, *shape: int, dtype: object = None) -> Array:
        """An array of zeros."""
        return self.full(shape, 0.0, dtype)

    def ones(self, *shape: int, dtype: object = None) -> Array:
        """An array of ones."""
        return self.full(shape, 1.0, dtype)

    def full(self, shape: Sequence[int], value: float, dtype: object = None) -> Array:
        """An array with one value everywhere."""
        return self.array(np.full(_flat(shape), value), dtype)

    def arange(self, start: float, stop: float | None = None, step: float = 1, dtype: object = None) -> Array:
        """Numbers from `start` (0 if only one number is given) up to, without, `stop`."""
        return self.array(np.arange(start, stop, step) if stop is not None else np.arange(start), dtype)

    def set_seed(self, seed: int) -> None:
        """Start the random numbers anew."""
        self._random = generator(seed)

    def rand(self, *shape: int, dtype: object = None) -> Array:
        """Numbers from 0 to 1."""
        return self.array(self._random.random(_flat(shape)), dtype)

    def randn(self, *shape: int, dtype: object = None) -> Array:
        """Numbers of mean 0 and variance 1."""
        return self.array(self._random.standard_normal(_flat(shape)), dtype)

    def randint(self, low: int, high: int, *shape: int, dtype: object = None) -> Array:
        """Integers from `low` up to, without, `high`."""
        return self.array(self._random.integers(low, high, _flat(shape)), dtype)

    def random_key(self, seed: int) -> Array:
        """The key, two int32 words, that random operators take."""
        return self.array(np.random.SeedSequence(seed).generate_state(2).view(np.int32))

    def lay_out(self, weight: Any) -> Any:
        """The weight (o, i, *kernel) of a convolution, in the order in memory that the framework convolves fastest
        with. Maps take over that order from one convolution to the next, so that nothing is rearranged per call."""
        return weight

    # Functions

    def scope(self) -> AbstractContextManager[object] | None:
        """This backend's settings (64-bit JAX, MLX's device) as a context to run in; None where there are none."""
        return None

    def prepare(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, run under this backend's settings."""
        if self.scope() is None:
            return function

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.scope() or nullcontext():
                return function(*args, **kwargs)

        return run

    @abstractmethod
    def jit(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, compiled by the framework when it is first called."""

    @abstractmethod
    def vjp(
        self, function: Callable[[Arrays], Arrays], params: Arrays
    ) -> tuple[Arrays, Callable[[Arrays], dict[str, Array]]]:
        """The outputs of `function(params)`, and a function from output gradients to parameter gradients.

        Outputs that are given no gradient count as constant.
        """

    def grad(self, function: Callable[[Arrays], Array], params: Arrays) -> dict[str, Array]:
        """Gradients of a scalar function of `params`."""
        outputs, pullback = self.vjp(lambda values: {"value": function(values)}, params)
        return pullback({"value": self.full(self.shape_of(outputs["value"]), 1.0)})


def _flat(shape: Sequence[Any]) -> tuple[int, ...]:
    """`(2, 3)` for both `zeros(2, 3)` and `zeros((2, 3))`."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else tuple(shape)


def generator(seed: int) -> np.random.Generator:
    """NumPy's random numbers from a seed.

    Raises:
        BackendError: it is no whole number, or below 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise BackendError(f"seed is {seed!r:.40}; it must be a whole number of at least 0.")
    return np.random.default_rng(seed)
