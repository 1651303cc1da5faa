"""Unpacking archives that strangers made: nothing outside of the target, nothing but files, nothing half-written."""

import gzip
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from nexus.data.dataset import DataError

_CHUNK = 1 << 20
# Names, links and padding of a tar file come on top of the contents.
_HEADER_BYTES = 4096
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)


def extract(archive: Path, target: Path, *, max_members: int = 2_000_000, max_bytes: int = 1 << 40) -> None:
    """Unpacks a .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip into the new folder `target`.

    Members may be folders and plain files. It is unpacked beside `target` and renamed when it is whole; where
    another process was faster, its result stays.

    Args:
        max_members: Most files and folders.
        max_bytes: Most bytes of all files together, however small the archive is.

    Raises:
        DataError: A member is absolute, climbs with "..", is a link or a device, occurs twice, or exceeds a limit;
            or the archive is broken. Nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".incomplete") as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        try:
            _unpack(archive, whole, max_members, max_bytes)
        except _BROKEN as error:
            raise DataError(f"{archive} is truncated or corrupt ({error}); delete it and download it again.") from error
        except (OSError, RuntimeError, NotImplementedError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{archive} cannot be unpacked into {target.parent} ({error}).") from error
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def _unpack(archive: Path, folder: Path, max_members: int, max_bytes: int) -> None:
    left, seen = max_bytes, set()
    with _members(archive, max_members, max_bytes) as members:
        for count, (name, is_folder, size, open_content) in enumerate(members, start=1):
            place = _place(archive, folder, name)
            if count > max_members:
                raise DataError(f"{archive} has more than {max_members:,} members; it was not unpacked.")
            if size > left:
                raise DataError(f"{archive}: {name!r} makes it larger than {max_bytes:,} bytes; it was not unpacked.")
            if is_folder:
                place.mkdir(parents=True, exist_ok=True)
                continue
            if place in seen:
                raise DataError(f"{archive} holds {name!r} twice; it was not unpacked.")
            seen.add(place)
            place.parent.mkdir(parents=True, exist_ok=True)
            left -= _copy(open_content(), place, left, f"{archive}: {name!r}")


def _copy(content: IO[bytes], place: Path, limit: int, what: str) -> int:
    """Writes the content to a new file and returns its size; stops at the limit, whatever the header promised."""
    size = 0
    with content, place.open("xb") as file:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise DataError(f"{what} is larger than its header says, or than the limit; it was not unpacked.")
            file.write(chunk)
    return size


def _place(archive: Path, folder: Path, name: str) -> Path:
    """Returns where a member goes, which is inside of `folder`."""
    path = PurePosixPath(name)
    climbs = ".." in path.parts or path.is_absolute() or "\\" in name or ":" in name or "\0" in name
    if climbs or not name:
        raise DataError(
            f"{archive} holds the path {name!r}, which leads out of its folder; it was not unpacked: do not trust it."
        )
    return folder / path


Member = tuple[str, bool, int, Callable[[], IO[bytes]]]


@contextmanager
def _members(archive: Path, max_members: int, max_bytes: int) -> Iterator[Iterator[Member]]:
    """Gives (name, is a folder, size in bytes, how to open it) of each member."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(archive, file)
        return
    with _decompressed(archive) as plain:
        bounded = _Bounded(plain, max_bytes + max_members * _HEADER_BYTES, archive)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r|") as file:
            yield _tar_members(archive, file)
        while bounded.read(_CHUNK):  # the checksum of a compressed file comes last
            pass


def _zip_members(archive: Path, file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _not_plain(archive, info.filename, "a link" if kind == stat.S_IFLNK else "a device")
        if info.flag_bits & 1:
            raise DataError(f"{archive} is encrypted; unpack it by hand.")
        yield info.filename, info.filename.endswith("/"), info.file_size, partial(file.open, info)


def _tar_members(archive: Path, file: tarfile.TarFile) -> Iterator[Member]:
    for info in file:
        if not (info.isreg() or info.isdir()):
            raise _not_plain(archive, info.name, "a link" if info.issym() or info.islnk() else "a device")
        open_content: Any = partial(file.extractfile, info)
        yield info.name, info.isdir(), info.size, open_content


def _not_plain(archive: Path, name: str, kind: str) -> DataError:
    return DataError(
        f"{archive} holds {name!r}, which is {kind}; only files and folders are unpacked: do not trust it."
    )


@contextmanager
def _decompressed(archive: Path) -> Iterator[IO[bytes]]:
    import bz2

    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with archive.open("rb") as raw:
        opener = openers.get(raw.read(2))
        raw.seek(0)
        if opener is None:
            yield raw
            return
        with opener(raw) as plain:
            yield plain


class _Bounded:
    """A stream that ends in an error after so many bytes: headers can be bombs, too."""

    def __init__(self, stream: IO[bytes], limit: int, archive: Path):
        self.stream, self.left, self.archive = stream, limit, archive

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.archive} unpacks to more than the limit; it was not unpacked.")
        return data
