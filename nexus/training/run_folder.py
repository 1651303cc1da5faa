"""The folder of a run: one process at a time works in it, and a start that fails leaves it free.

A run holds its folder by a lock of the operating system, which ends with the process however that ends. A folder is
taken once it has a checkpoint or a finished model; until then another start may have it.
"""

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from torch import nn

from nexus.core.documents import FileError, read_json
from nexus.core.files import write_whole
from nexus.core.module import NexusModule
from nexus.training.checkpoint import replace_folder
from nexus.training.distributed import World

LOCK, OWNER = ".lock", ".owner.json"
REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What a disk says that takes no more."""
PATIENCE = 10.0
"""Seconds that the lock of a process that was killed may outlive it, in loader workers that are about to end."""


class RunFolderError(ValueError):
    """A run cannot have its folder: another process works in it, holds another run, or it cannot be written."""


class RunFolder:
    """Holds a run's folder within the context.

    Attributes:
        path: The folder; it exists within the context.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK, is_singleton=False)
        self._made: list[Path] = []  # folders that were not there before

    def __enter__(self) -> Self:
        """Takes the folder.

        Raises:
            RunFolderError: Another process has it, or it cannot be written.
        """
        try:
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            write_whole(self.path / OWNER, lambda part: part.write_text(json.dumps(owner)))
        except OSError as error:
            self._release()
            raise RunFolderError(
                f"{self.path} cannot hold a run: {error.strerror or error}. Make room, or use another run_dir."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if not is_taken(self.path):
            self._clear()
        self._release()

    def _acquire(self) -> None:
        self._wait(0)
        while not (self.path / LOCK).exists():  # a start that failed removed it between our opening and locking it
            self._lock.release()
            self.path.mkdir(parents=True, exist_ok=True)
            self._wait(0)

    def _wait(self, seconds: float) -> None:
        try:
            self._lock.acquire(timeout=seconds)
        except Timeout:
            owner = _owner(self.path)
            if seconds or owner is None or _lives(owner):
                raise RunFolderError(_in_use(self.path, owner)) from None
            self._wait(PATIENCE)

    def _release(self) -> None:
        if self._lock.is_locked:
            for name in (OWNER, LOCK):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)
            self._lock.release()
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()  # empty: the start failed

    def _clear(self) -> None:
        """Removes what a start wrote that came to no step; a log with lines is kept, for the person who looks why."""
        log = self.path / "metrics.jsonl"
        with suppress(OSError):
            if log.exists() and log.stat().st_size:
                return
            for name in ("recipe.yaml", "metrics.jsonl"):
                (self.path / name).unlink(missing_ok=True)
            (self.path / "checkpoints").rmdir()


@contextmanager
def held(path: Path, world: World) -> Iterator[None]:
    """Holds a run's folder for all processes of a run, and names what cannot be written in it.

    Raises:
        RunFolderError: Another process has it, or the disk takes no more.
    """
    with ExitStack() as stack:
        world.main_alone(lambda: stack.enter_context(RunFolder(path)) and None)
        stack.enter_context(naming_writes(path))
        yield


def is_taken(path: Path) -> bool:
    """Returns whether a folder holds a run: a checkpoint, whole or not, or a finished model."""
    checkpoints = path / "checkpoints"
    return (path / "model").exists() or any(
        file.is_dir() for pattern in ("step-*", ".replaced-step-*") for file in checkpoints.glob(pattern)
    )


def _owner(path: Path) -> Mapping[str, Any] | None:
    """What the process that holds a folder wrote about itself; None before it did."""
    for _ in range(20):  # it writes right after it has the lock
        with suppress(FileError):
            owner = read_json(path / OWNER)
            if isinstance(owner, dict) and isinstance(owner.get("pid"), int):
                return owner
        time.sleep(0.05)
    return None


def _lives(owner: Mapping[str, Any]) -> bool:
    """Whether a process may still be there; of another machine nobody here knows."""
    if owner.get("host") != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _in_use(path: Path, owner: Mapping[str, Any] | None) -> str:
    who = f"process {owner['pid']} on {owner.get('host')} (since {owner.get('since')})" if owner else "another process"
    return f"{path} is in use by {who}; wait until it ends, stop it, or use another run_dir."


@contextmanager
def naming_writes(path: Path) -> Iterator[None]:
    """Turns a write that the system refuses, such as on a full disk, into one line that says how to go on.

    Raises:
        RunFolderError: In the place of an OSError that says that a disk takes no more.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise cannot_write(Path(error.filename or path), path, error) from error


def cannot_write(file: Path, run_dir: Path, error: Exception) -> RunFolderError:
    """Returns the error of a file of a run that cannot be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    how = "its checkpoints are whole: make room, then resume it" if is_taken(run_dir) else "make room, then start again"
    return RunFolderError(f"{file} cannot be written ({reason}). The run stopped; {how}.")


def write_model(model: nn.Module, run_dir: Path) -> None:
    """Writes `model/`, whole or not at all: `save_pretrained` for a model of the zoo, for any other its weights alone.

    Raises:
        RunFolderError: The disk takes no more.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    final, part = run_dir / "model", run_dir / f".part-model-{os.getpid()}"
    try:
        if isinstance(model, NexusModule):
            model.save_pretrained(part)
        else:
            part.mkdir()
            save_model(model, str(part / "model.safetensors"))
        replace_folder(final, part)
    except (OSError, SafetensorError) as error:
        raise cannot_write(final, run_dir, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
