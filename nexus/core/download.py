"""Files from the network: fetched once, resumed after a cut, checked, and in the cache only when they are whole."""

import hashlib
import http.client
import io
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from nexus.core.files import WeightsError

ATTEMPTS = 5
TIMEOUT_SECONDS = 20.0
TOTAL_SECONDS = 12 * 3600.0
"""Of one file, all attempts together."""
SLOWEST, SLOW_SECONDS = 1 << 10, 30.0
"""A server that sends fewer bytes per second than this, over so long, is left; the head of its answer counts too."""
LARGEST_FILE = 64 << 30
"""Bytes of one file."""
UNKEPT_SECONDS = 600.0
"""Of something that is read into memory, such as an image."""
SCHEMES = ("http", "https")
_CHUNK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}


def home() -> Path:
    """Returns the folder of everything that is kept between runs: `NEXUS_HOME`, or `~/.cache/nexus`."""
    return Path(os.environ.get("NEXUS_HOME") or Path.home() / ".cache" / "nexus").expanduser()


def offline() -> bool:
    """Returns whether `NEXUS_OFFLINE` or `HF_HUB_OFFLINE` forbids the network."""
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in _OFFLINE_NAMES)


_OFFLINE_NAMES = ("NEXUS_OFFLINE", "HF_HUB_OFFLINE")


def reachable(url: str) -> bool:
    """Returns whether the server of an address answers within two seconds; behind a proxy, True without asking.

    Libraries that try again and again keep a user without a network waiting; this says so at once.
    """
    parts = urlsplit(url)
    if urllib.request.getproxies().get(parts.scheme) or parts.hostname is None:
        return True
    try:
        with socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 2):
            return True
    except OSError:
        return False


def download(url: str, *, sha256: str = "", folder: Path | None = None) -> Path:
    """Returns the path of the file at `url`, fetching it unless the cache has it.

    Processes that ask for the same file at once share one download.

    Args:
        url: `http://` or `https://`.
        sha256: The digest or its first digits; the file is checked whenever it is asked for. Empty: not checked.
        folder: Where to keep it; None means `home() / "weights"`.

    Raises:
        WeightsError: It is not there and the network is forbidden or fails, or its content is not what it should be.
    """
    from filelock import FileLock

    parts = urlsplit(url)
    name = unquote(parts.path.rpartition("/")[2])
    if parts.scheme not in SCHEMES or not name or name in (".", "..") or "/" in name or "\\" in name:
        raise WeightsError(f"{url!r} is not the http(s) address of a file.")
    folder = home() / "weights" if folder is None else folder
    target = folder / name
    if not target.is_file():
        if offline():
            raise WeightsError(
                f"{name} is not in the cache and the network is switched off ({' or '.join(_OFFLINE_NAMES)} is set). "
                f"Fetch {url} on another machine and put it at {target}."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            if not target.is_file():
                _fetch(url, target, sha256)
                return target
    check_sha256(target, sha256)
    return target


def fetch(url: str, largest: int) -> bytes:
    """Returns what lies at `url`, in one attempt; it is not kept anywhere.

    Args:
        url: `http://` or `https://`.
        largest: Bytes that it may have.

    Raises:
        WeightsError: The network fails, or it sends more, or too slowly.
    """
    target = io.BytesIO()
    try:
        with _open(url, {}) as reply:
            total = _total(reply.headers.get("Content-Length"), 0, largest)
            _copy(reply, target, lambda count: None, time.monotonic() + UNKEPT_SECONDS, largest)
        if total is None or target.tell() == total:
            return target.getvalue()
        problem: object = "the connection ended before the file did"
    except (OSError, http.client.HTTPException, ValueError, _Refused) as error:  # ValueError: an odd address
        problem = str(error) or repr(error)
    raise WeightsError(f"{url} could not be fetched ({problem}). Check the address.")


def check_sha256(path: Path, sha256: str) -> None:
    """Raises `WeightsError` unless the file's digest begins with `sha256` (any file passes an empty one)."""
    if not sha256:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256.lower()):
        raise WeightsError(
            f"{path} has the sha256 {digest[: max(16, len(sha256))]}, but it should begin with {sha256}: "
            "the file is damaged or is another one. Delete it and fetch it again."
        )


def _fetch(url: str, target: Path, sha256: str) -> None:
    """Downloads to a hidden partial file, checks it, and only then gives it its name."""
    partial = target.with_name(f".{target.name}.incomplete")
    if not sha256:
        partial.unlink(missing_ok=True)  # nothing could tell whether an older part belongs to the same file
    resumed = partial.exists()
    _fetch_all(url, partial)
    try:
        check_sha256(partial, sha256)
    except WeightsError:
        if resumed:  # the part may have been of another version: once more from the start
            partial.unlink()
            _fetch(url, target, sha256)
            return
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        partial.unlink()
        raise WeightsError(
            f"{url} gave a file with the sha256 {digest[: max(16, len(sha256))]}, but it should begin with {sha256}. "
            "It was not kept. The file there has changed, or something between changed it."
        ) from None
    partial.replace(target)


class _Refused(Exception):
    """The server does something that another attempt would not mend."""


class _Steady(io.RawIOBase):
    """What comes over a connection, head and body, until it comes too slowly."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self._since, self._count = raw, time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count = self._raw.readinto(buffer)
        self._count += count or 0
        passed = time.monotonic() - self._since
        if passed > SLOW_SECONDS:
            if self._count < SLOWEST * passed:
                raise _Refused(f"it sends fewer than {SLOWEST:,} bytes a second")
            self._since, self._count = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reply(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Steady(self.fp.detach()))


class _Connection(http.client.HTTPConnection):
    response_class = _Reply


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Reply


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        return self.do_open(_Connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, req: Any) -> Any:
        return self.do_open(_SecureConnection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in SCHEMES:
            fp.close()
            raise _Refused(f"it leads to {newurl!r:.200}, which is neither http nor https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str]) -> Any:
    """Asks for an address; every answer comes steadily, and no redirect leads away from http and https."""
    if urlsplit(url).scheme not in SCHEMES:
        raise _Refused("it is neither http nor https")
    headers = {"User-Agent": "nexus-vision", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the scheme was checked)
    return urllib.request.build_opener(_Plain, _Secure, _Redirects).open(request, timeout=TIMEOUT_SECONDS)


def _fetch_all(url: str, partial: Path) -> None:
    """Fills `partial`, going on where it was cut, with a few attempts."""
    problem: object = None
    deadline = time.monotonic() + TOTAL_SECONDS
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(0.25 * 2**attempt, 5.0))
        try:
            if _fetch_rest(url, partial, deadline):
                return
            problem = "the connection ended before the file did"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            error.close()
            if error.code == 416:  # our part is as long as the file, or longer: it is of no use
                partial.unlink(missing_ok=True)
            elif error.code not in _PASSING:
                break
        except _Refused as error:
            problem = error
            break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = getattr(error, "reason", None) or repr(error)
            if isinstance(problem, socket.gaierror):  # nobody answers to the name: there is no network to wait for
                break
        except OSError as error:
            problem = f"{partial.parent} cannot take it ({error.strerror or error})"
            break
    raise WeightsError(
        f"{url} could not be fetched: {problem}. Try again later (it goes on where it stopped), "
        f"or put the file at {partial.with_name(partial.name.removeprefix('.').removesuffix('.incomplete'))} yourself."
    )


def _fetch_rest(url: str, partial: Path, deadline: float) -> bool:
    """Asks for the bytes that `partial` lacks; returns whether it is whole afterwards."""
    have = partial.stat().st_size if partial.exists() else 0
    with _open(url, {"Range": f"bytes={have}-"} if have else {}) as reply:
        continues = reply.status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if reply.status == 206 and not continues:
            partial.unlink(missing_ok=True)
            return False
        start = have if continues else 0
        total = _total(reply.headers.get("Content-Length"), start, LARGEST_FILE)
        with partial.open("ab" if continues else "wb") as file, _progress(url, start, total) as advance:
            _copy(reply, file, advance, deadline, LARGEST_FILE)
    return total is None or partial.stat().st_size == total


def _total(length: str | None, start: int, largest: int) -> int | None:
    """Returns how long the file is said to be, of which `start` bytes are there; None if nothing is said."""
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()) or len(length) > 18 or start + int(length) > largest:
        raise _Refused(f"its Content-Length is {length!r:.40}; at most {largest:,} bytes are fetched")
    return start + int(length)


def _copy(reply: Any, file: IO[bytes], advance: Any, deadline: float, largest: int) -> None:
    """Copies what comes, unless it does not end."""
    while chunk := reply.read1(_CHUNK):
        file.write(chunk)
        advance(len(chunk))
        if file.tell() > largest:
            raise _Refused(f"it sends more than {largest:,} bytes")
        if time.monotonic() > deadline:
            raise _Refused("it takes too long")


@contextmanager
def _progress(url: str, start: int, total: int | None) -> Iterator[Any]:
    """Shows a bar on an interactive terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(url.rpartition("/")[2], completed=start, total=total)
        yield lambda count: bar.advance(task, count)
