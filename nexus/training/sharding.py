"""Whole tensors out of sharded ones and back, so that a checkpoint does not depend on how a run was spread."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs


def local(tensor: Tensor) -> Tensor:
    """Returns this process's part of a sharded tensor, or the tensor itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def unsharded(tensor: Tensor) -> Tensor:
    """Returns a sharded tensor whole, or the tensor itself. For a sharded one all processes call it together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def is_sharded(tensor: Tensor) -> "TypeIs[DTensor]":
    """Whether the tensor is a `DTensor`; its class is imported only where there may be one."""
    if type(tensor) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tree: Any) -> Any:
    """Returns nested mappings and lists with every tensor whole and on the CPU. Sharded tensors make it collective."""
    if isinstance(tree, Tensor):
        return unsharded(tree.detach()).cpu()
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(whole(value) for value in tree)
    return tree


def like(value: Tensor, reference: Tensor) -> Tensor:
    """Returns a whole tensor placed as `reference` is: its device, its type, and its sharding."""
    value = value.to(reference.device, reference.dtype)
    if not is_sharded(reference):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, reference.device_mesh, reference.placements)


@torch.no_grad()
def load_values(current: dict[str, Tensor], saved: dict[str, Tensor], what: str) -> None:
    """Writes whole saved tensors into the current ones, in place.

    Raises:
        ValueError: Names or shapes differ; the first that does is named.
    """
    for name in sorted(current.keys() ^ saved.keys()):
        raise ValueError(f"The {what} of the checkpoint and of the model differ: {name!r} is only in one of them.")
    for name, value in current.items():
        if value.shape != saved[name].shape:
            raise ValueError(
                f"The {what} {name!r} is {tuple(saved[name].shape)} in the checkpoint and"
                f" {tuple(value.shape)} in the model."
            )
        value.copy_(like(saved[name], value))


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Returns the optimizer's state with parameters by name, and its groups' settings."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = {names[id(p)]: dict(values) for p, values in optimizer.state.items()}
    groups = [
        {
            **{key: value for key, value in group.items() if key != "params"},
            "names": [names[id(p)] for p in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    return {"state": whole(state), "groups": groups}


def load_optimizer_state(optimizer: Optimizer, model: nn.Module, saved: dict[str, Any]) -> None:
    """Puts back what `optimizer_state` returned.

    Raises:
        ValueError: The groups hold other parameters than the checkpoint's.
    """
    parameters = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}
    ours = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    if ours != [group["names"] for group in saved["groups"]]:
        raise ValueError("The optimizer's parameter groups and the checkpoint's differ; this is another model.")
    for group, settings in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update({key: value for key, value in settings.items() if key != "names"})
        for parameter in group["params"]:
            values = saved["state"].get(names[id(parameter)])
            if values is not None:
                optimizer.state[parameter] = {key: _place(key, values[key], parameter, group) for key in values}


def _place(key: str, value: Any, parameter: nn.Parameter, group: dict[str, Any]) -> Any:
    """Returns a saved value beside its parameter. Torch keeps step counters on the CPU unless the step is fused."""
    if not isinstance(value, Tensor):
        return value
    if key == "step":
        return value.to(parameter.device) if group.get("fused") else value
    return like(value, parameter.detach())
