"""Params and data against what a compiled model takes: every problem, in one list, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mithril.errors import MithrilError, ValueMismatchError, nearest
from mithril.ops.table import MASK
from mithril.physical.graph import Graph, Value, Variadic, show_shape
from mithril.types import Dim, DType

if TYPE_CHECKING:
    from mithril.backends.base import Backend

HINTED = (DType.int32, DType.int64, DType.bool)
"""Dtypes that data has by accident: NumPy's and torch's own of whole numbers and of comparisons."""

Arrays = Mapping[str, Any]


class Checker:
    """Sorts given values into params, data and state, and collects what does not fit."""

    def __init__(self, graph: Graph, backend: Backend):
        self.name = graph.name
        self.backend = backend
        self.inputs = {k: v for k, v in graph.inputs.items() if v.kind != "constant"}
        self.constants = {k for k, v in graph.inputs.items() if v.kind == "constant"}
        self.unused = graph.unused.keys()
        self.fixed = {k: v.shape for k, v in self.inputs.items() if not v.is_open}
        self.native = {v.dtype: backend.native(v.dtype) for v in self.inputs.values()}

    def sort(self, params: Arrays, data: Arrays | None, state: Arrays | None) -> tuple[dict[str, Any], ...]:
        """The values where the generated source looks for them. Without `data` (None), none is missing.

        Raises:
            ValueMismatchError: one line per problem.
        """
        problems = self._swapped(params, data or {})
        sorted_values: dict[str, dict[str, Any]] = {"parameter": {}, "input": {}, "state": {}}
        sizes: dict[str, tuple[int, str]] = {}
        for source, values in (("params", params), ("data", data or {}), ("state", state or {})):
            for key, value in values.items():
                expected = self.inputs.get(key)
                if expected is None:
                    problems += self._superfluous(key, source)
                    continue
                value = self._hardened(value, expected)
                if not self.backend.is_array(value):
                    value = self._convert(key, value, expected, problems)
                elif value.dtype != self.native[expected.dtype] and not self._dtype_fits(value, expected):
                    if self.backend.name == "numpy" and expected.dtype.is_floating and value.dtype.kind == "f":
                        value = self.backend.array(value, expected.dtype)
                    else:
                        problems.append(self._wrong_dtype(self.backend.dtype_of(value), expected))
                if value is not None and (key not in self.fixed or value.shape != self.fixed[key]):
                    self._check_shape(tuple(value.shape), expected, sizes, problems)
                place = sorted_values[expected.kind]
                if key in place and source != "state":
                    problems.append(f"'{key}' is given twice, in {source} and before.")
                place[key] = value
        given = sum(map(len, sorted_values.values()))
        if given < len(self.inputs):
            problems += self._missing(sorted_values, data is not None)
        if problems:
            raise ValueMismatchError(f"{self.name} cannot run with these values:", problems)
        return tuple(sorted_values.values())

    def _swapped(self, params: Arrays, data: Arrays) -> list[str]:
        kinds = [{self.inputs[k].kind for k in given if k in self.inputs} for given in (params, data)]
        if kinds[0] == {"input"} and kinds[1] and "input" not in kinds[1]:
            return [f"params has {_listed(params)} and data has {_listed(data)}: they are swapped; params come first."]
        return []

    def _hardened(self, value: Any, expected: Value) -> Any:
        """Truth values where an operator reads them as such, numbers to add where a mask is given as truth values."""
        if expected.soft is None or expected.soft is int:
            return value
        values = self.backend.to_numpy(value) if self.backend.is_array(value) else np.asarray(value)
        if expected.soft is bool and values.dtype.kind in "iuf":
            return self.backend.array(values != 0, DType.bool)
        if expected.soft is MASK and values.dtype.kind == "b" and expected.dtype.is_floating:
            return self.backend.array(np.where(values, 0.0, -np.inf), expected.dtype)
        return value

    def _dtype_fits(self, value: Any, expected: Value) -> bool:
        found, wanted = self.backend.dtype_of(value), expected.dtype
        if found is wanted:
            return True
        if expected.any_width or (self.backend.name in ("jax", "mlx") and wanted.bits == 64):
            return found.is_integer == wanted.is_integer and found.is_floating == wanted.is_floating
        return expected.name == "random_key" and found.is_integer

    def _convert(self, key: str, value: Any, expected: Value, problems: list[str]) -> Any:
        """A list, number or array of another framework as an array of this one, if its kind fits."""
        try:
            array = self.backend.array(value)
        except (MithrilError, TypeError, ValueError) as error:
            problems.append(f"'{key}' is {type(value).__name__}, which is no array: {error}")
            return None
        found: DType = self.backend.dtype_of(array)
        if found.is_floating != expected.dtype.is_floating and not (
            isinstance(value, int | float | list) and expected.dtype.is_floating
        ):
            problems.append(self._wrong_dtype(found, expected))
            return None
        return self.backend.array(array, expected.dtype)

    def _check_shape(
        self, shape: tuple[int, ...], expected: Value, sizes: dict[str, tuple[int, str]], problems: list[str]
    ) -> None:
        wanted = expected.shape
        if isinstance(wanted, Variadic):
            fits, pairs = len(shape) >= len(wanted.tail), zip(shape[len(shape) - len(wanted.tail) :], wanted.tail)
        else:
            fits, pairs = len(shape) == len(wanted), zip(shape, wanted)
        for size, want in pairs if fits else ():
            if isinstance(want, Dim) and want.name is not None:
                known, other = sizes.setdefault(want.name, (size, expected.name))
                if known != size:
                    problems.append(f"'{expected.name}' has {size} where {want} is {known} in '{other}'.")
            elif isinstance(want, int) and size != want:
                fits = False
        if not fits:
            origin = f" ({expected.path}, {expected.origin})" if expected.origin else f" ({expected.path})"
            problems.append(
                f"'{expected.name}' has shape {show_shape(shape)}, but {show_shape(wanted)} is needed{origin}."
            )

    def _wrong_dtype(self, found: DType, expected: Value) -> str:
        kind = f"an {'integer' if expected.dtype.is_integer else expected.dtype} dtype"
        kind = kind if expected.any_width else str(expected.dtype)
        origin = "as declared" if expected.declared else f"the dtype of {self.backend!r}"
        hint = ""
        if found in HINTED and expected.kind == "input" and expected.dtype.is_floating and not expected.declared:
            word = "int" if found.is_integer else "bool"
            hint = f" Convert it to {expected.dtype}, or declare it where the model is composed: type={word}."
        return f"'{expected.name}' is {found}, but {kind} is needed ({expected.path}, {origin}).{hint}"

    def _superfluous(self, key: str, source: str) -> list[str]:
        if key in self.unused:
            return []
        if key in self.constants:
            return [f"'{key}' in {source} is a constant of the model and cannot be given."]
        return [f"'{key}' in {source} is no key of {self.name}.{nearest(key, self.inputs)}"]

    def _missing(self, found: dict[str, dict[str, Any]], with_data: bool) -> list[str]:
        missing = []
        for key, value in self.inputs.items():
            needed = value.kind == "parameter" or (value.kind == "input" and with_data)
            if needed and key not in found[value.kind]:
                where = "data" if value.kind == "input" else "params"
                missing.append(f"'{key}' {show_shape(value.shape)} is missing from {where} ({value.path}).")
        return missing


def _listed(keys: Iterable[str]) -> str:
    names = [f"'{key}'" for key in keys]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
