"""Weight files: reading them without running what is in them, and writing them whole or not at all."""

import argparse
import json
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nexus.core.formats import State
from nexus.core.pickled_modules import read_pickled_module
from nexus.core.torchscript import is_torchscript, read_torchscript

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".npz")

# What old checkpoints of DETR, MAE, DINO and timm carry beside the weights; all of it is plain data.
_HARMLESS: list[Any] = [argparse.Namespace, OrderedDict, defaultdict, np.dtype, np._core.multiarray.scalar] + [
    type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "bool")
]

# Names under which training programs keep the weights in a checkpoint, the most telling first.
_PAYLOADS = ("model_ema", "ema", "state_dict_ema", "state_dict", "model_state", "model_state_dict", "model", "module")
_WRAPPERS = ("module.", "_orig_mod.", "model.")


class WeightsError(ValueError):
    """A weight file cannot be had, cannot be read, or does not fit the model. The message names the file."""


def read_state(path: Path) -> State:
    """Returns the weights in a file, by name, on the CPU.

    A training checkpoint is unwrapped to its weights (the averaged ones if it has them), and prefixes that
    wrappers such as DataParallel and torch.compile put before every name are taken off.

    Args:
        path: A `.safetensors`, `.npz`, or PyTorch file (`.pth`, `.pt`, `.bin`, `.tar`), or the
            `*.safetensors.index.json` of a file in parts.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or wants to run code.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}.")
    if path.name.endswith(".index.json"):
        parts = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        return {key: value for part in parts for key, value in read_state(path.parent / Path(part).name).items()}
    readers: dict[str, Callable[[Path], Any]] = {".safetensors": _read_safetensors, ".npz": _read_npz}
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path} is not a weight file that is known here; it must end in {', '.join(SUFFIXES)}.")
    return _strip_wrappers(_unwrap(readers.get(path.suffix, _read_pickle)(path), path))


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}). Delete it and fetch it again.") from None


def _read_npz(path: Path) -> Any:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} holds something other than plain arrays ({error}); it was not loaded.") from None
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not a whole .npz file ({error}). Delete it and fetch it again.") from None


def _read_pickle(path: Path) -> Any:
    try:
        if is_torchscript(path):  # OpenAI publishes CLIP so; torch.load would refuse it, torch.jit.load run it
            return read_torchscript(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the pickle protocol, just before it is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        state = _read_model_object(path)
        if state is not None:
            return state
        named = re.search(r"GLOBAL (\S+)", str(error))  # torch's other advice is to trust the file
        reason = f" (it names {named[1]})" if named else ""
        raise WeightsError(
            f"{path} holds more than weights and was refused; nothing in it was run{reason}. "
            "Get the file as .safetensors, or save its state_dict alone."
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError, TypeError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise WeightsError(f"{path} is not a whole PyTorch file ({reason}). Delete it and fetch it again.") from None


def _read_model_object(path: Path) -> State | None:
    """The weights of a file of `torch.save(model)`, where it holds a model and nothing that could act."""
    try:
        return read_pickled_module(path) if zipfile.is_zipfile(path) else None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError, TypeError):
        return None  # what was refused first says why


def _unwrap(payload: Any, path: Path) -> State:
    """Returns the mapping of names to tensors inside a checkpoint."""
    while isinstance(payload, Mapping):
        tensors = {key: value for key, value in payload.items() if isinstance(value, Tensor) and isinstance(key, str)}
        inner = [payload[key] for key in _PAYLOADS if isinstance(payload.get(key), Mapping)]
        inner = [value for value in inner if value]
        if inner and len(tensors) < len(inner[0]):
            payload = inner[0]
        elif tensors:
            return tensors
        else:
            break
    raise WeightsError(f"{path} holds no weights; its content is {_describe(payload)}.")


def _describe(payload: Any) -> str:
    if isinstance(payload, Mapping):
        return f"a mapping with {', '.join(map(repr, list(payload)[:8])) or 'nothing in it'}"
    return f"a {type(payload).__name__}"


def _strip_wrappers(state: State) -> State:
    stripped = True
    while stripped and state:
        stripped = False
        for prefix in _WRAPPERS:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                stripped = True
    return state


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
