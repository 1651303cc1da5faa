"""Checkpoints that are whole or not there at all.

A checkpoint is a folder `step-00000120` with `state.pt` (everything a run needs to go on), `metrics.jsonl` (what it
had written so far) and `manifest.json` (size and SHA-256 of both). It is written under another name, flushed to the
disk and renamed, so that a kill or a full disk leaves either the new folder or none. The newest that agrees with its
manifest is the one that counts.
"""

import hashlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

_PREFIX = "step-"


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read."""


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
            CheckpointError: The file wants to run code; nothing in it was run.
        """
        try:
            return torch.load(self.path / "state.pt", map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{self.path / 'state.pt'} holds more than tensors and plain values and was refused; nothing was run."
            ) from None

    def metrics(self) -> bytes:
        """Returns `metrics.jsonl` as it was."""
        return (self.path / "metrics.jsonl").read_bytes()


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
    folder: Path, step: int, state: Mapping[str, Any], metrics: bytes, facts: Mapping[str, Any]
) -> Checkpoint:
    """Writes `folder/step-<step>`, whole or not at all.

    Raises:
        CheckpointError: It cannot be written, such as on a full disk; older checkpoints are untouched.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    part = folder / f".part-{step:08d}-{os.getpid()}"
    try:
        part.mkdir(parents=True)
        files = {
            "state.pt": _write(part / "state.pt", state),
            "metrics.jsonl": _write(part / "metrics.jsonl", metrics),
        }
        manifest = {"format": 1, "step": step, "torch": torch.__version__, **facts, "files": files}
        _write(part / "manifest.json", json.dumps(manifest, indent=1).encode())
        _flush_folder(part)
        _replace(final, part)
        _flush_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's writer turns a failed write into a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        kept = ", ".join(path.name for path in _folders(folder)[:1]) or "none"
        raise CheckpointError(
            f"The checkpoint of step {step} could not be written to {folder}: {_reason(error)}."
            f" The newest whole one is {kept}. Make room, then resume the run."
        ) from error
    return Checkpoint(final, step, facts)


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


def prune_checkpoints(folder: Path, keep: int, best_step: int | None) -> None:
    """Removes all but the newest `keep` checkpoints and the best one."""
    for path in _folders(folder)[keep:]:
        if path.name != f"{_PREFIX}{best_step or 0:08d}":
            _remove(path)


def tidy(folder: Path) -> None:
    """Removes what killed runs left half-written or half-removed, and puts back what they were about to replace."""
    for path in folder.glob(f".replaced-{_PREFIX}*"):
        final = folder / path.name.removeprefix(".replaced-")
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(final)
    for path in folder.glob(".part-*"):
        shutil.rmtree(path, ignore_errors=True)


def discard_newer(folder: Path, step: int) -> None:
    """Removes checkpoints after a step: damaged ones that a resumed run goes back behind."""
    for path in _folders(folder):
        if path.name > f"{_PREFIX}{step:08d}":
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
    """Returns the folders of checkpoints, the newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _replace(final: Path, part: Path) -> None:
    """Gives a finished folder its name; at every moment one of the old and the new one can be found by `tidy`."""
    old = final.with_name(f".replaced-{final.name}")
    if final.exists():
        final.rename(old)
    part.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    """Removes a checkpoint; a kill in between leaves a folder that no longer counts as one."""
    doomed = path.with_name(f".part-{path.name}-{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _verify(path: Path) -> tuple[str | None, dict[str, Any]]:
    """Returns what is wrong with a checkpoint, or None and its manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files = manifest["files"]
        for name in ("state.pt", "metrics.jsonl"):
            data = path / name
            if data.stat().st_size != files[name]["bytes"]:
                return f"{name} has {data.stat().st_size} bytes instead of {files[name]['bytes']}", {}
            with data.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != files[name]["sha256"]:
                    return f"the SHA-256 of {name} does not agree", {}
        if manifest["format"] != 1 or f"{_PREFIX}{manifest['step']:08d}" != path.name:
            return "its manifest belongs to another checkpoint or version", {}
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}", {}
    except (ValueError, KeyError, TypeError):
        return "manifest.json is not a manifest", {}
    return None, manifest


def _reason(error: Exception) -> str:
    """Returns the system's words for a failed write, also from under torch's own error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
