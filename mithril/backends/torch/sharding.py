"""What generated source needs beyond DTensor's own rules to give equal numbers on a mesh."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.experimental import implicit_replication
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from mithril.backends.base import P, R

Function = Callable[..., Tensor]
ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels whose gradients DTensor can shard; the fused one for CPU is not among them."""


def on_mesh(function: Callable[P, R]) -> Callable[P, R]:
    """`function` for DTensors. Tensors that it makes itself count as copies on every process; of what it returns, sums
    that are still spread over processes are added up."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with implicit_replication(), _Replaced(), sdpa_kernel(ATTENTION):
            return tree_map(_settle, function(*args, **kwargs))

    return run


def _settle(value: Any) -> Any:
    """One mesh axis at a time: torch logs a warning about several at once."""
    for axis, placement in enumerate(value.placements if isinstance(value, DTensor) else ()):
        if placement.is_partial():
            before, after = value.placements[:axis], value.placements[axis + 1 :]
            value = value.redistribute(placements=[*before, Replicate(), *after])
    return value


class _Replaced(TorchFunctionMode):
    """Functions for which DTensor of torch 2.13 has no rule, or a wrong one. What it then still refuses to do with
    cut arrays, such as a view that tears a cut axis apart, is done with whole ones on every process."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            func = _batch_norm
        elif func in _CONVOLUTIONS:
            func = partial(_convolution, func)
        elif func is torch.Tensor.tolist and isinstance(args[0], DTensor):
            args = (args[0].full_tensor(),)
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            changes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
            if changes or func is torch.autograd.grad:  # copies are changed, or differentiated by, in vain
                raise
            args, kwargs = tree_map(_whole, (args, kwargs))
            return func(*args, **kwargs)


def _whole(value: Any) -> Any:
    whole = [Replicate()] * value.device_mesh.ndim if isinstance(value, DTensor) else ()
    return value.redistribute(placements=whole) if whole else value


_CONVOLUTIONS = {getattr(F, f"conv{k}{n}d"): out for out, k in enumerate(("", "_transpose")) for n in (1, 2, 3)}
"""Each with the axis of output channels in its weight."""


def _convolution(
    function: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1, **settings: Any
) -> Tensor:
    """A convolution on local parts. Along a mesh axis that cuts the weight's output channels, it makes the channels of
    this process; along one that cuts the batch, those of its images; along others everything.

    DTensor's own rule takes no notice of the weight's placement, and knows a batch on the first mesh axis only.
    """
    tensors = [t for t in (input, weight, bias) if isinstance(t, DTensor)]
    if not tensors:
        return function(input, weight, bias, groups=groups, **settings)
    mesh, everywhere = tensors[0].device_mesh, [Replicate()] * tensors[0].device_mesh.ndim
    parts = [t if isinstance(t, DTensor) else DTensor.from_local(t, mesh, everywhere) for t in (input, weight)]
    parts += [] if bias is None else [bias if isinstance(bias, DTensor) else DTensor.from_local(bias, mesh, everywhere)]
    # For each mesh axis: where input, weight and bias are, then their gradients, then the output.
    copy, total, out = Replicate(), Partial(), _CONVOLUTIONS[function]
    by_image = ((Shard(0), copy, copy), (Shard(0), total, total), Shard(0))
    by_channel = ((copy, Shard(out), Shard(0)), (total, Shard(out), Shard(0)), Shard(1))
    plan: list[Any] = []
    for of_input, of_weight in zip(parts[0].placements, parts[1].placements):
        if groups == 1 and of_weight == Shard(out):
            plan.append(by_channel)
        else:
            plan.append(by_image if of_input == Shard(0) else ((copy,) * 3, (copy,) * 3, copy))
    local = []
    for i, part in enumerate(parts):
        given, back = ([step[side][i] for step in plan] for side in (0, 1))
        local.append(part.redistribute(placements=given).to_local(grad_placements=back))
    return DTensor.from_local(function(*local, groups=groups, **settings), mesh, [output for _, _, output in plan])


def _batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `F.batch_norm`, over the whole batch."""
    rows, shape = [0, *range(2, input.ndim)], [-1] + [1] * (input.ndim - 2)
    mean, var = running_mean, running_var
    if training:
        mean = input.mean(rows)
        var = (input - mean.view(shape)).square().mean(rows)
        count = input.numel() // input.shape[1]
        with torch.no_grad():
            running_mean.copy_(torch.lerp(running_mean, mean, momentum))
            running_var.copy_(torch.lerp(running_var, var * (count / max(count - 1, 1)), momentum))
    scale = torch.rsqrt(var + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return input * scale.view(shape) + shift.view(shape)
