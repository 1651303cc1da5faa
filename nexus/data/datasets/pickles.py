"""Reading pickles of arrays, lists and mappings without ever running what is in them.

A pickle is a program that may call any function it names. Here `nexus.core.pickles` reads it, and knows the few names
that NumPy's arrays need, each with a meaning of its own that can only hold numbers; what names another is refused.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.documents import FileError, read_bytes
from nexus.core.pickles import InertModule, unpickle
from nexus.data.dataset import DataError

ARRAY_BYTES = 256 << 20
"""Of a pickle, and of what its calls copy; CIFAR-100 has 155 million."""


class _Type(InertModule):
    """Stands for `numpy.dtype`. NumPy's own would take any state from the file, true or not."""

    def __init__(self, code: Any, *flags: Any):
        self.dtype = np.dtype(code.decode("ascii") if isinstance(code, bytes) else code)
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        order: Any = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array(InertModule):
    """Stands for the function that makes a blank array; the blank is filled by its state."""

    def __init__(self, *blank: Any):
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, _Type) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("it holds an array that is not made of numbers")
        self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if is_fortran else "C")


class _Inert(InertModule):
    """Stands for a name that is only mentioned, `numpy.ndarray`; there is nothing to make of it."""

    def __init__(self) -> None:
        raise pickle.UnpicklingError("it makes an array in an unknown way")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it may only name")


class _Bytes(_Inert):
    """Stands for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
        return text.encode("latin1")


_MEANINGS: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Inert,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _Bytes,
}


def _meaning(module: str, name: str) -> type:
    if (module, name) not in _MEANINGS:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
    return _MEANINGS[module, name]


def _nothing(mark: Any) -> Any:
    raise pickle.UnpicklingError("it names an object outside of it")


def read_arrays(path: Path) -> dict:
    """Returns the mapping of arrays, lists, numbers and texts in a pickle; texts of Python 2 are bytes.

    Raises:
        DataError: The file is missing or broken, names anything but plain arrays, or is no mapping. Nothing in it
            was run.
    """
    try:
        file = io.BytesIO(read_bytes(path, ARRAY_BYTES))
        content = unpickle(file, _meaning, _nothing, size=ARRAY_BYTES, steps=ARRAY_BYTES, python_2=True)
    except FileError as error:
        raise DataError(f"{path} cannot be read; unpack its archive again. {error}") from None
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} was refused: {error}. Only mappings of arrays and lists are read from pickles; nothing in it was "
            "run. Download the archive again from its official place."
        ) from error
    except Exception as error:  # a broken program can fail in any way
        raise DataError(f"{path} is truncated or corrupt ({error}); unpack its archive again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a mapping; unpack its archive again.")
    return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
