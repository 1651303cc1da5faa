"""Files of bare tensors, `.safetensors` and `.npz`: their headers as `Stored` tensors, within limits."""

import ast
import io
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nexus.core.documents import FileError, Limits, parse_json
from nexus.core.stored import Damaged, Storage, Stored, StoredState, WeightsError

HEADER = Limits(size=16 << 20, depth=4)
"""Of a safetensors file: some hundred thousand tensors."""
DIRECTORY_BYTES, ENTRIES = 4 << 20, 30_000
"""Of a zip archive's table of contents."""
EXPANSION, EXPANSION_FLOOR = 16, 64 << 20
"""An archive may unpack to so many times its own size, or to so many bytes if that is more; weights hardly shrink."""
CHUNK = 1 << 20

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(path: Path) -> StoredState:
    """Returns the tensors that the header of a safetensors file lists, each checked against the file's size."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 8 or length > size - 8:
            raise WeightsError(f"{path} is not a whole safetensors file. Delete it and fetch it again.")
        if length > HEADER.size:
            raise WeightsError(f"{path} has a header of {length:,} bytes; at most {HEADER.size:,} are read.")
        header = _header(file.read(length), path)
    if not isinstance(header, dict):
        raise WeightsError(f"The header of {path} is a {type(header).__name__}; it must list tensors by name.")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    tensors = {name: _entry(path, name, entry, 8 + length) for name, entry in entries.items()}
    total = sum(tensor.storage.count * tensor.dtype.itemsize for tensor in tensors.values())
    if 8 + length + total != size:  # neither cut nor lengthened, and no tensors on top of each other
        raise WeightsError(f"{path} is not a whole safetensors file: {size:,} bytes instead of {8 + length + total:,}.")
    return tensors


def _header(text: bytes, path: Path) -> Any:
    try:
        return parse_json(text, f"The header of {path}", HEADER)
    except FileError as error:
        raise WeightsError(f"{error} It is not a whole safetensors file; delete it and fetch it again.") from None


def _entry(path: Path, name: str, entry: Any, start: int) -> Stored:
    try:
        dtype, shape, (first, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if type(first) is not int or type(end) is not int or not 0 <= first <= end:
            raise Damaged(f"the tensor lies at {first} to {end}")
        storage = Storage(dtype, (end - first) // dtype.itemsize, lambda: _read_part(path, start + first, end - first))
        tensor = Stored.dense(storage, tuple(shape))
        if tensor.numel() * dtype.itemsize != end - first:
            raise Damaged(f"{tensor.shape} of {dtype} are not {end - first} bytes")
    except (Damaged, KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise WeightsError(
            f"The header of {path} is damaged at {name!r:.100} ({reason:.100}). Delete the file and fetch it again."
        ) from None
    return tensor


def _read_part(path: Path, start: int, size: int) -> bytearray:
    data = bytearray(size)
    with path.open("rb") as file:
        file.seek(start)
        count = file.readinto(data)
    return data[:count] if count < size else data


class _Directory(io.FileIO):
    """A file of which no more than a table of contents is read at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its table of contents has {size:,} bytes")
        return super().read(size)


class Archive:
    """A zip archive whose entries, unpacked, stay within `EXPANSION`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        file = _Directory(path)
        weakref.finalize(self, file.close)
        self._zip = zipfile.ZipFile(file)
        infos = self._zip.infolist()
        self.entries = {info.filename: info for info in infos}
        total, allowed = sum(info.file_size for info in infos), max(EXPANSION_FLOOR, EXPANSION * path.stat().st_size)
        if total > allowed or len(infos) > ENTRIES:
            raise WeightsError(
                f"{path} would unpack to {total:,} bytes in {len(infos):,} files; at most {allowed:,} bytes in "
                f"{ENTRIES:,} files are unpacked. It is no file of weights."
            )

    def read(self, name: str, limit: int | None = None) -> bytearray:
        """Returns an entry unpacked and checked against its checksum, or no more than its first `limit` bytes."""
        info = self.entries[name]
        data = bytearray(info.file_size if limit is None else min(limit, info.file_size))
        place = 0
        with self._zip.open(info) as file:
            while place < len(data) and (chunk := file.read(min(CHUNK, len(data) - place))):
                data[place : place + len(chunk)] = chunk
                place += len(chunk)
            if limit is None:
                file.read(1)  # at the end the checksum is compared
        return data[:place] if place < len(data) else data


NPY_START, NPY_HEADER = b"\x93NUMPY", 16 << 10
"""How an array begins, and the bytes that say its type and shape."""


def read_npz(path: Path) -> StoredState:
    """Returns the arrays of an `.npz` archive; arrays of objects are refused."""
    archive = Archive(path)
    return {name.removesuffix(".npy"): _array(archive, name) for name in archive.entries}


def _array(archive: Archive, name: str) -> Stored:
    start = bytes(archive.read(name, NPY_HEADER))
    wide = 2 if start[6:7] == b"\x01" else 4  # bytes of the header's length, by the format's version
    skip = 8 + wide + int.from_bytes(start[8 : 8 + wide], "little")
    if not start.startswith(NPY_START) or skip > len(start):
        raise Damaged(f"{name!r:.100} is no array")
    header = ast.literal_eval(start[8 + wide : skip].decode("latin-1").strip())
    dtype, shape = np.dtype(header["descr"]), header["shape"]
    if dtype.kind not in "biufc" or not dtype.isnative or dtype.subdtype:
        raise WeightsError(
            f"{archive.path} holds something other than plain arrays ({name!r:.100}); it was not loaded."
        )
    kind, size = torch.from_numpy(np.empty(0, dtype)).dtype, archive.entries[name].file_size - skip
    storage = Storage(kind, size // kind.itemsize, lambda: archive.read(name)[skip:])
    if not header["fortran_order"]:
        return Stored.dense(storage, shape)
    return Stored(storage, 0, shape, Stored.dense(storage, shape[::-1]).stride[::-1])
