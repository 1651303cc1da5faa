"""Checkpoints that are whole or not there at all.

A checkpoint is a folder `step-00000120` with `state.pt` (everything a run needs to go on), `metrics.jsonl` (what it
had written so far), `data.gz` (what its data was) and `manifest.json` (size and SHA-256 of each). It is written under
another name, flushed to the disk and renamed, so that a kill or a full disk leaves either the new folder or none. The
newest that agrees with its manifest is the one that counts.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from nexus.core.documents import FileError, read_json
from nexus.core.text import as_message

_PREFIX = "step-"
_NAME = re.compile(r"step-[0-9]{8,18}")
FILES = ("state.pt", "metrics.jsonl")
"""What every checkpoint holds."""


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read."""

    def __init__(self, message: str) -> None:
        super().__init__(as_message(message))


@dataclass(frozen=True)
class Checkpoint:
    """A folder that agreed with its manifest when it was listed.

    Attributes:
        path: The folder.
        step: Optimizer steps that were done.
        facts: What the manifest says beside the files: epoch, metrics.
    """

    path: Path
    step: int
    facts: Mapping[str, Any]

    def state(self) -> dict[str, Any]:
        """Returns the saved values.

        Raises:
            CheckpointError: The file wants to run code, and nothing in it was run; or it is no checkpoint at all.
        """
        file = self.path / "state.pt"
        try:
            _check_stored(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{file} holds more than tensors and plain values and was refused; nothing was run."
            ) from None
        except Exception as error:  # a pickle that somebody else wrote can fail in any way
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CheckpointError(f"{file} is no checkpoint of a run ({reason}). Remove {self.path}.") from None
        if not isinstance(state, dict):
            raise CheckpointError(f"{file} holds a {type(state).__name__}, not a run's state. Remove {self.path}.")
        return state

    def metrics(self) -> bytes:
        """Returns `metrics.jsonl` as it was."""
        return (self.path / "metrics.jsonl").read_bytes()

    def data(self) -> bytes:
        """Returns the fingerprints of the data; b"" of a checkpoint from before there were any."""
        return (self.path / "data.gz").read_bytes() if "data.gz" in self.facts["files"] else b""


class _Hashing:
    """A file to write to that knows the SHA-256 of what went through."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.file.write(view)
        self.sha256.update(view)
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(
    folder: Path, step: int, state: Mapping[str, Any], metrics: bytes, facts: Mapping[str, Any], data: bytes = b""
) -> Checkpoint:
    """Writes `folder/step-<step>`, whole or not at all.

    Raises:
        CheckpointError: It cannot be written, such as on a full disk; older checkpoints are untouched.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    part = folder / f".part-{step:08d}-{os.getpid()}"
    try:
        part.mkdir(parents=True)
        contents = {"state.pt": state, "metrics.jsonl": metrics, "data.gz": data}
        files = {name: _write(part / name, content) for name, content in contents.items()}
        manifest = {"format": 1, "step": step, "torch": torch.__version__, **facts, "files": files}
        _write(part / "manifest.json", json.dumps(manifest, indent=1).encode())
        _flush_folder(part)
        replace_folder(final, part)
        _flush_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's writer turns a failed write into a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        kept = ", ".join(path.name for path in _folders(folder)[:1]) or "none"
        raise CheckpointError(
            f"The checkpoint of step {step} could not be written to {folder}: {_reason(error)}."
            f" The newest whole one is {kept}. Make room, then resume the run."
        ) from error
    return Checkpoint(final, step, manifest)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that agrees with its manifest; warns of each newer one that does not.

    None where there is no checkpoint at all.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for path in _folders(folder):
        problem, manifest = _verify(path)
        if problem is None:
            return Checkpoint(path, manifest["step"], manifest)
        damaged.append(f"{path.name}: {problem}")
        warnings.warn(f"The checkpoint {path} is damaged ({problem}); falling back to the one before.", stacklevel=2)
    if damaged:
        raise CheckpointError(f"Every checkpoint in {folder} is damaged ({'; '.join(damaged)}). Start a new run.")
    return None


def checkpoint_at(folder: Path, step: int) -> Checkpoint | None:
    """Returns the checkpoint of a step if it is there and agrees with its manifest."""
    path = folder / f"{_PREFIX}{step:08d}"
    problem, manifest = _verify(path)
    return None if problem else Checkpoint(path, step, manifest)


def prune_checkpoints(folder: Path, step: int, keep: int, best_step: int | None) -> None:
    """Removes all up to `step`, the one just written, but the newest `keep` checkpoints and the best one."""
    for path in [path for path in _folders(folder) if _step(path) <= step][keep:]:
        if _step(path) != best_step:
            _remove(path)


def newest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint, whole or not; 0 without any."""
    return max(map(_step, _folders(folder)), default=0)


def tidy(folder: Path) -> None:
    """Removes what killed runs left half-written or half-removed, and puts back what they were about to replace."""
    for path in folder.glob(f".replaced-{_PREFIX}*"):
        final = folder / path.name.removeprefix(".replaced-")
        if final.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not final.exists():
            path.rename(final)
    for path in folder.glob(".part-*"):
        shutil.rmtree(path, ignore_errors=True)


def discard_newer(folder: Path, step: int) -> None:
    """Removes checkpoints after a step: damaged ones that a resumed run goes back behind."""
    for path in _folders(folder):
        if _step(path) > step:
            _remove(path)


def _write(path: Path, content: Mapping[str, Any] | bytes) -> dict[str, Any]:
    with path.open("wb") as file:
        hashing = _Hashing(file)
        if isinstance(content, bytes):
            hashing.write(content)
        else:
            torch.save(dict(content), hashing)  # pyrefly: ignore[bad-argument-type]
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": hashing.size, "sha256": hashing.sha256.hexdigest()}


def _flush_folder(folder: Path) -> None:
    """Makes the names in a folder durable; only POSIX systems open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(folder: Path) -> list[Path]:
    """Returns the folders of checkpoints, the newest first; what else lies there is nothing of ours."""
    try:
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def replace_folder(final: Path, part: Path) -> None:
    """Gives a finished folder its name; at every moment one of the old and the new one can be found by `tidy`."""
    old = final.with_name(f".replaced-{final.name}")
    if final.exists():
        final.rename(old)
    part.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    """Removes a checkpoint; a kill in between leaves a folder that no longer counts as one.

    One that the system keeps is passed over at the next resume as at this one.
    """
    doomed = path.with_name(f".part-{path.name}-{os.getpid()}")
    try:
        path.rename(doomed)
    except OSError as error:
        warnings.warn(f"{path} cannot be removed ({error.strerror}); remove it yourself.", stacklevel=3)
        return
    shutil.rmtree(doomed, ignore_errors=True)


def _check_stored(path: Path) -> None:
    """Raises ValueError unless the archive is no larger unpacked than packed; `torch.save` compresses nothing."""
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
            raise ValueError("it is compressed")


def _verify(path: Path) -> tuple[str | None, dict[str, Any]]:
    """Returns what is wrong with a checkpoint, or None and its manifest."""
    try:
        manifest = read_json(path / "manifest.json")
        files = manifest["files"]
        if manifest["format"] != 1 or manifest["step"] != _step(path):
            return "its manifest belongs to another checkpoint or version", {}
        for name in {**dict.fromkeys(FILES), **{name: None for name in files if name == "data.gz"}}:
            problem = _problem(path / name, files[name]["bytes"], files[name]["sha256"])
            if problem:
                return f"{name} {problem}", {}
    except FileError as error:
        return str(error).removeprefix(f"{path}{os.sep}").rstrip("."), {}
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}", {}
    except (KeyError, TypeError):
        return "manifest.json is not a manifest", {}
    return None, manifest


def _problem(file: Path, size: int, sha256: str) -> str | None:
    if file.stat().st_size != size:
        return f"has {file.stat().st_size} bytes instead of {size}"
    with file.open("rb") as content:
        agrees = hashlib.file_digest(content, "sha256").hexdigest() == sha256
    return None if agrees else "does not agree with its SHA-256"


def _reason(error: Exception) -> str:
    """Returns the system's words for a failed write, also from under torch's own error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
