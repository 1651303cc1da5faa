"""Files of `torch.save` and `torch.jit.save`, new and old, read as data: what stands where code may is refused.

Tensors come as `Stored`; objects of modules as `InertModule`, bare holders of their attributes. None of the classes and
none of the programs in a file is needed or run.
"""

import functools
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nexus.core.pickles import PICKLE_BYTES, InertModule, Refused, unpickle
from nexus.core.stored import Damaged, Storage, Stored, StoredState
from nexus.core.tensor_files import Archive

ZIP_START = b"PK\x03\x04"
OLD_START = 0x1950A86A20F9469CFC6C
"""The number that opens a file of `torch.save` before torch 1.6."""
MODULE_DEPTH, MODULE_COUNT = 32, 30_000
"""Of a saved module's parts."""

MODULES = ("torch.nn.", "ultralytics.", "models.", "__torch__")
"""Packages whose classes are modules of networks."""
PLAIN = ("numpy", "argparse", "pathlib", "datetime", "types.SimpleNamespace", "mmengine", "omegaconf", "easydict")
PLAIN += ("lightning", "lightning_fabric", "pytorch_lightning", "torch.torch_version", "torch._C", "torch.optim")
"""Packages and classes whose objects training programs put beside the weights; they are passed over."""

_STORAGES = {
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
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
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_STORAGES.values(), torch.uint16, torch.uint32)}
_DTYPES |= {"uint64": torch.uint64, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def read_torch_file(path: Path) -> Any:
    """Returns what a file of `torch.save` or `torch.jit.save` holds.

    Raises:
        Refused: It names something that is neither a tensor, nor a module, nor plain data.
        Damaged, and what the zip module raises: It is damaged.
    """
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
    return _read_zip(path) if start == ZIP_START else _read_old(path)


def _read_zip(path: Path) -> Any:
    archive = Archive(path)
    record = next((name for name in archive.entries if name.endswith("/data.pkl") or name == "data.pkl"), None)
    if record is None:
        raise Damaged("it is a zip archive without data.pkl")
    root = record.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.entries and bytes(archive.read(f"{root}byteorder", 16)) != b"little":
        raise Damaged("it was written on a big-endian machine")
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        _, dtype, key, _, count = pid
        if key not in storages:
            name = f"{root}data/{key}"
            held = archive.entries[name].file_size
            if type(count) is not int or count * dtype.itemsize > held:
                raise Damaged(f"the storage {key} has {held} bytes instead of {count} elements")
            storages[key] = Storage(dtype, count, lambda: archive.read(name))
        return storages[key]

    return unpickle(io.BytesIO(archive.read(record, PICKLE_BYTES + 1)), _stands_for, persistent)


def _read_old(path: Path) -> Any:
    """Reads the format before torch 1.6: pickles one after another, then the numbers of each storage."""
    places: dict[str, int] = {}
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or any(view):
            raise Damaged("it holds a view of a storage, as torch wrote them before 0.4; save it again")
        read = functools.partial(_read_old_storage, path, places, key, count * dtype.itemsize)
        return storages.setdefault(key, Storage(dtype, count, read))

    def nothing(pid: Any) -> Any:
        raise pickle.UnpicklingError("its first lines name a storage")

    with path.open("rb") as file:
        if unpickle(file, _stands_for, nothing) != OLD_START:
            raise pickle.UnpicklingError("it does not begin as torch.save does")
        unpickle(file, _stands_for, nothing)
        unpickle(file, _stands_for, nothing)
        content = unpickle(file, _stands_for, persistent)
        for key in unpickle(file, _stands_for, nothing):
            if int.from_bytes(file.read(8), "little") != storages[key].count:
                raise Damaged(f"the storage {key} has another length than its tensors")
            places[key] = file.tell()
            file.seek(storages[key].count * storages[key].dtype.itemsize, io.SEEK_CUR)
        if file.tell() > path.stat().st_size or places.keys() != storages.keys():
            raise EOFError("it ends too early")
    return content


def _read_old_storage(path: Path, places: Mapping[str, int], key: str, size: int) -> bytearray:
    data = bytearray(size)
    with path.open("rb") as file:
        file.seek(places[key])
        return data[: file.readinto(data)]


def _stands_for(module: str, name: str) -> Any:
    """Returns what a name in a pickle stands for here, or raises `Refused`."""
    known = _KNOWN.get((module, name))
    if known is not None:
        return known
    if module == "torch" and name in _STORAGES:
        return _STORAGES[name]
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
        return _first
    whole = f"{module}.{name}"
    if whole.startswith(MODULES) or any(whole == one or whole.startswith(f"{one}.") for one in PLAIN):
        return InertModule
    raise Refused(module, name)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Stored:
    return Stored(storage, offset, tuple(size), tuple(stride))


def _tensor_of_bytes(
    storage: Any, offset: int, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Stored:
    whole = Storage(dtype, storage.count // dtype.itemsize, storage.read)
    return Stored(whole, offset, tuple(size), tuple(stride))


def _first(value: Any, *_: Any) -> Any:
    return value


def _default(*_: Any) -> dict[Any, Any]:
    return {}


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_bytes,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch.storage", "UntypedStorage"): torch.uint8,
    ("torch", "Size"): tuple,
    ("torch", "device"): InertModule,
    ("torch.serialization", "_get_layout"): InertModule,
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): _default,
    ("collections", "Counter"): dict,
    ("_codecs", "encode"): InertModule,
    **{
        (place, name): kind
        for place in ("builtins", "__builtin__")
        for name, kind in (("set", set), ("frozenset", frozenset))
    },
    **{
        (place, name): InertModule
        for place in ("builtins", "__builtin__")
        for name in ("complex", "bytearray", "slice")
    },
}


def module_state(module: InertModule) -> StoredState:
    """Returns the state dict of a module object, or of a scripted one the tensors of it and its parts.

    Buffers that a state dict leaves out are there in a scripted module: its archive does not mark them.
    """
    found: StoredState = {}
    waiting = [("", module)]
    for _ in range(MODULE_COUNT):
        if not waiting:
            return found
        prefix, one = waiting.pop()
        own, parts = _contents(one)
        found |= {f"{prefix}{name}": value for name, value in own.items() if isinstance(value, Stored)}
        if prefix.count(".") < MODULE_DEPTH:
            inner = [(f"{prefix}{name}.", part) for name, part in parts.items() if isinstance(part, InertModule)]
            waiting += reversed(inner)
    raise Damaged(f"it has more than {MODULE_COUNT:,} modules")


def _contents(module: InertModule) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what belongs to a module's state, and its parts; an object without `_modules` was scripted."""
    values = vars(module)
    if "_modules" not in values:
        return values, values
    parameters, buffers, parts = (values.get(f"_{kind}") for kind in ("parameters", "buffers", "modules"))
    passing = values.get("_non_persistent_buffers_set", ())
    own = {**(parameters if isinstance(parameters, dict) else {}), **(buffers if isinstance(buffers, dict) else {})}
    kept = {name: value for name, value in own.items() if not (isinstance(passing, set) and name in passing)}
    return kept, parts if isinstance(parts, dict) else {}
