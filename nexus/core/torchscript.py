"""The weights inside a TorchScript archive, read as data: none of the program beside them is loaded or run."""

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class InertModule:
    """Stands for an object of any class: only its attributes are kept, none of its code is there."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def is_torchscript(path: Path) -> bool:
    """Returns whether a file is an archive of `torch.jit.save`, which holds a program beside its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of the scripted module and its parts, named as in its state dict.

    Buffers that the state dict leaves out are there too: the archive does not mark them.

    Raises:
        pickle.UnpicklingError: The archive names something other than tensors and modules.
        ValueError, KeyError, OSError: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        record = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        with archive.open(record) as file:
            root = InertReader(file, archive, record.removesuffix("data.pkl")).load()
    return dict(_tensors(root, ""))


def _tensors(module: InertModule, prefix: str) -> list[tuple[str, Tensor]]:
    found = []
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, InertModule):
            found += _tensors(value, f"{prefix}{name}.")
    return found


class InertReader(pickle.Unpickler):
    """Unpickles modules as bare attributes and tensors from the archive; every other name is refused."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return InertModule
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _rebuild_tensor if name == "_rebuild_tensor_v2" else _rebuild_parameter
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return _first
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is neither a tensor nor a module")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        data = self._archive.read(f"{self._root}data/{key}")
        size = count * torch.empty(0, dtype=dtype).element_size()
        if len(data) < size:
            raise ValueError(f"the storage {key} has {len(data)} bytes instead of {size}")
        return torch.frombuffer(bytearray(data), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if offset < 0 or min(stride, default=0) < 0 or (math.prod(size) and last >= len(storage)):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _first(value: Any, *_: Any) -> Any:
    return value
