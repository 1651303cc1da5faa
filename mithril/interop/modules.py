"""Compiled models as torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mithril.compile.running import PhysicalModel
from mithril.errors import BackendError, KeyMismatchError, nearest


class CompiledModule(nn.Module):
    """A model compiled for torch, with its parameters, as a module that any trainer takes.

    Args:
        compiled: on the torch backend. If it was compiled for training, `eval()` switches to its inference variant.
        params: by key; `randomize_params()` without them.

    Raises:
        BackendError: the model was compiled for another backend.
        ValueMismatchError: all missing, superfluous and ill-fitting values, in one list.
    """

    def __init__(self, compiled: PhysicalModel, params: Mapping[str, Any] | None = None):
        super().__init__()
        if compiled.backend.name != "torch":
            raise BackendError(f"as_module needs a model compiled for torch, not for {compiled.backend.name}.")
        values, _, state = compiled._checker.sort(params or compiled.randomize_params(), None, None)
        trainable = set(compiled.trainable_keys)
        self._compiled = compiled
        self._inference = compiled._freeze({}) if compiled.training and compiled.state_keys else compiled
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for key, value in values.items():
            self._keep(key, compiled.graph.inputs[key].state_name or key, value.detach().clone(), key in trainable)
        for key, value in {**compiled.initial_state(), **state}.items():
            self._keep(key, compiled.graph.inputs[key].state_name or key, value.detach().clone(), False)
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

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model. Data by position is taken in the order of `data_keys`."""
        model = self._compiled if self.training else self._inference
        data = self._data(args, kwargs)
        params = {key: self._tensor(key) for key in (*model.parameter_keys, *model.constants)}
        state = {key: self._tensor(key) for key in model.state_keys}
        if not model.graph.new_state:
            outputs = model._evaluate({**params, **state}, data)
        else:
            outputs, new_state = model._evaluate(params, data, state)
            for key, value in new_state.items():
                self._tensor(key).copy_(value.detach())
        return outputs["output"] if list(outputs) == ["output"] else outputs

    def _data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
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
