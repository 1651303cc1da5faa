"""Weight files: reading them without running what is in them, and writing them whole or not at all."""

import os
import pickle
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nexus.core.checkpoints import Checkpoint
from nexus.core.documents import FileError, read_json
from nexus.core.formats import State
from nexus.core.pickles import Refused
from nexus.core.stored import Damaged, WeightsError, load_all
from nexus.core.tensor_files import read_npz, read_safetensors
from nexus.core.torch_files import read_torch_file

__all__ = ["SUFFIXES", "WeightsError", "beside", "open_checkpoint", "read_state", "reading", "write_whole"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz")
INDEX = ".index.json"
PARTS = 1_000
"""Files that one index may name."""
_READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    ".safetensors": ("safetensors", read_safetensors),
    ".npz": (".npz", read_npz),
}
_DAMAGED = (
    *(Damaged, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError),
    *(KeyError, IndexError, AttributeError, RuntimeError, MemoryError, OverflowError, SyntaxError),
)
"""What reading a damaged file raises: ours, the zip module's (RuntimeError: encryption), Python's of literals."""


def read_state(path: Path) -> State:
    """Returns the weights in a file, by name, on the CPU.

    A training checkpoint is unwrapped to its weights (the averaged ones if it has them), and prefixes that
    wrappers such as DataParallel and torch.compile put before every name are taken off.

    Args:
        path: A `.safetensors`, `.npz`, or PyTorch file (`.pth`, `.pt`, `.bin`, `.ckpt`, `.tar`), or the
            `*.safetensors.index.json` of a file in parts.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or wants to run code.
    """
    state = open_checkpoint(path).weights()
    with reading(path):
        return load_all(state)


def open_checkpoint(path: Path) -> Checkpoint:
    """Returns what a weight file holds, with none of its numbers read. See `read_state`."""
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}.")
    if path.name.endswith(INDEX):
        return Checkpoint(path, _read_parts(path))
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{path} is not a weight file that is known here; it must end in {', '.join(SUFFIXES)}.")
    return Checkpoint(path, _read_one(path))


def _read_one(path: Path) -> Any:
    _, read = _READERS.get(path.suffix.lower(), ("", read_torch_file))
    with reading(path):
        return read(path)


def _read_parts(path: Path) -> dict[str, Any]:
    """Returns the tensors of the files that an index names, each from the file that it is said to be in."""
    opened = {part: _read_one(beside(path, part)) for part in part_names(path)}
    names = read_json(path)["weight_map"]
    missing = [key for key, part in names.items() if not isinstance(opened[part], dict) or key not in opened[part]]
    if missing:
        raise WeightsError(
            f"{path} says that {missing[0]!r:.100} is in {names[missing[0]]!r:.100}, where it is not. Fetch both again."
        )
    return {key: opened[part][key] for key, part in names.items()}


def part_names(path: Path) -> list[str]:
    """Returns the names of the files that an `*.index.json` lists.

    Raises:
        FileError: It lists none, or something other than files of weights in its own folder.
    """
    index = read_json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(part, str) for part in names.values()):
        raise WeightsError(f"{path} has no weight_map from names to files. Fetch it again.")
    parts = sorted(set(names.values()))
    strange = [part for part in parts if part.endswith(INDEX) or Path(part).name != part or "\\" in part]
    if len(parts) > PARTS or strange:
        raise WeightsError(
            f"{path} names {len(parts)} files such as {(strange or parts)[0]!r:.100}; at most {PARTS} files of weights "
            "in its own folder are read."
        )
    return parts


def beside(path: Path, name: Any) -> Path:
    """Returns the file called `name` in the folder of `path`, which named it.

    Raises:
        WeightsError: It is no plain name, or there is no such file, or a link that leads elsewhere. The hub's cache,
            whose folders are links to `blobs` beside them, is not elsewhere.
    """
    if not isinstance(name, str) or not name or Path(name).name != name or name in (".", "..") or "\\" in name:
        raise WeightsError(f"{path} names the file {name!r:.100}; only names of files in its folder are read.")
    try:
        real, folder = (path.parent / name).resolve(strict=True), path.parent.resolve()
    except (OSError, ValueError, RuntimeError):
        raise WeightsError(
            f"{path} names the file {name!r:.100}, which is not in {path.parent}; save the model again."
        ) from None
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    if not real.is_file() or real.parent not in (folder, blobs):
        raise WeightsError(
            f"{path} names the file {name!r:.100}, which is a link out of {path.parent}; copy the file there."
        )
    return path.parent / name


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong while the file `path` is read into one `WeightsError` that names it."""
    kind, _ = _READERS.get(path.suffix.lower(), ("PyTorch", None))
    try:
        yield
    except FileError:
        raise
    except Refused as error:
        raise WeightsError(
            f"{path} holds more than weights and was refused; nothing in it was run (it names {error}). "
            "Get the file as .safetensors, or save its state_dict alone."
        ) from None
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{path} is not a whole {kind} file ({reason}). Delete it and fetch it again.") from None


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path beside `path`, and gives the result its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".incomplete")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
