"""Compiled models as torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from mithril.errors import KeyMismatchError, nearest

Tensors = Mapping[str, Tensor]


class Compiled(Protocol):
    """What a module needs of a compiled model: see `mithril.compile.running.PhysicalModel`."""

    constants: dict[str, Tensor]

    @property
    def data_keys(self) -> list[str]: ...
    @property
    def parameter_keys(self) -> list[str]: ...
    @property
    def trainable_keys(self) -> list[str]: ...
    @property
    def state_keys(self) -> list[str]: ...
    def state_name(self, key: str) -> str: ...
    def checked_params(self, params: Mapping[str, object] | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]: ...
    def for_inference(self) -> Compiled: ...
    def run(self, params: Tensors, data: Tensors, state: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]: ...


class CompiledModule(nn.Module):
    """A model compiled for torch, with its parameters, as a module that any trainer takes.

    Args:
        compiled: on the torch backend. If it was compiled for training, `eval()` switches to its inference variant.
        params: by key; `randomize_params()` without them.

    Raises:
        ValueMismatchError: all missing, superfluous and ill-fitting values, in one list.
    """

    def __init__(self, compiled: Compiled, params: Mapping[str, object] | None = None):
        super().__init__()
        values, state = compiled.checked_params(params)
        trainable = set(compiled.trainable_keys)
        self._compiled = compiled
        self._inference = compiled.for_inference()
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for key, value in values.items():
            self._keep(key, compiled.state_name(key), value.detach().clone(), key in trainable)
        for key, value in state.items():
            self._keep(key, compiled.state_name(key), value.detach().clone(), False)
        constants = {**compiled.constants, **self._inference.constants}
        for number, (key, value) in enumerate(constants.items()):
            self.register_buffer(f"_constant_{number}", value, persistent=False)
            self._places[key] = self, f"_constant_{number}"

    def _keep(self, key: str, name: str, value: Tensor, learned: bool) -> None:
        """Register a tensor under a dotted name, with plain modules on the way."""
        *path, leaf = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if learned:
            owner.register_parameter(leaf, nn.Parameter(value))
        else:
            owner.register_buffer(leaf, value)
        self._places[key] = owner, leaf

    def params(self) -> dict[str, Tensor]:
        """The parameters by the compiled model's keys, for `evaluate` on this or, as arrays, any other backend."""
        return {key: self._tensor(key).detach() for key in self._compiled.parameter_keys}

    def _tensor(self, key: str) -> Tensor:
        owner, leaf = self._places[key]
        return getattr(owner, leaf)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Run the model. Data by position is taken in the order of `data_keys`."""
        model = self._compiled if self.training else self._inference
        data = self._data(args, kwargs)
        params = {key: self._tensor(key) for key in (*model.parameter_keys, *model.constants)}
        state = {key: self._tensor(key) for key in model.state_keys}
        outputs, new_state = model.run(params, data, state)
        for key, value in new_state.items():
            self._tensor(key).copy_(value.detach())
        return outputs["output"] if list(outputs) == ["output"] else outputs

    def _data(self, args: tuple[Tensor, ...], kwargs: Tensors) -> dict[str, Tensor]:
        keys = self._compiled.data_keys
        if len(args) > len(keys):
            raise KeyMismatchError(f"{len(args)} inputs were given, the model has {len(keys)}: {', '.join(keys)}.")
        data = {**dict(zip(keys, args)), **kwargs}
        for key in data:
            if key not in keys:
                raise KeyMismatchError(f"'{key}' is no data key of the model.{nearest(key, keys)}")
        missing = [key for key in keys if key not in data]
        if missing:
            raise KeyMismatchError(f"'{missing[0]}' is missing from the data.")
        return data
