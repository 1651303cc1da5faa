"""Values of a torch module as parameters of a model, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mithril.errors import KeyMismatchError, ValueMismatchError, nearest


def key_of(name: str) -> str:
    """A name of the state dict as a key: `blocks.0.norm1.weight` is `blocks_0_norm1_weight`."""
    return name.replace(".", "_")


def as_numpy(value: torch.Tensor) -> np.ndarray:
    """A copy of a tensor's values; bfloat16, which NumPy lacks, becomes float32."""
    value = value.detach().cpu()
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy().copy()


def params_of(values: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Parameters by key.

    Raises:
        KeyMismatchError: two names of the state dict give the same key.
    """
    params: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for name, value in values.items():
        key = key_of(name)
        if origin.setdefault(key, name) != name:
            raise KeyMismatchError(f"'{origin[key]}' and '{name}' of the state dict would both have the key '{key}'.")
        params[key] = as_numpy(value)
    return params


def state_dict_of(params: Mapping[str, Any], module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a module with the values of `params`, which may be arrays of any framework.

    Entries that the model does not have (they take no part in `forward`, or are tied to others) keep the module's.

    Raises:
        KeyMismatchError: a key that is none of the module's.
        ValueMismatchError: a value of another shape.
    """
    state = module.state_dict()
    names = {key_of(name): name for name in state}
    first = {value.data_ptr(): name for name, value in reversed(state.items()) if value.numel()}
    found: dict[str, torch.Tensor] = {}
    for key, value in params.items():
        if key not in names:
            raise KeyMismatchError(f"'{key}' is no key of {type(module).__name__}.{nearest(key, names)}")
        old = state[names[key]]
        new = torch.as_tensor(np.asarray(value)).to(old.dtype)
        if new.shape != old.shape:
            raise ValueMismatchError(f"'{key}' has shape {tuple(new.shape)}, {names[key]} has {tuple(old.shape)}.")
        found[names[key]] = new
    tied = {name: found.get(first.get(old.data_ptr(), name), old) for name, old in state.items()}
    return {name: found.get(name, tied[name]) for name in state}


def save_safetensors(params: Mapping[str, Any], path: str | Path, module: torch.nn.Module | None = None) -> None:
    """Write parameters as a safetensors file, under torch's names where the `module` they came from is given."""
    from safetensors.torch import save_file

    if module is not None:
        tensors = state_dict_of(params, module)
    else:
        tensors = {key: torch.as_tensor(np.asarray(value)) for key, value in params.items()}
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, str(path))
