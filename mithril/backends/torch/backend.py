"""The PyTorch backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mithril.backends.base import Arrays, Backend
from mithril.errors import BackendError
from mithril.types import DType


class TorchBackend(Backend):
    """Runs generated source on PyTorch.

    Args:
        device: "cpu", "cuda:1", "mps", ...
        device_mesh: sizes of a mesh of processes, as started by torchrun; `array(..., shard=)` then makes DTensors.
    """

    name = "torch"
    xp = "torch"
    imports = ("import math", "import torch", "import torch.nn.functional as F")
    kernels = ("torch.kernels",)

    def __init__(
        self,
        dtype: Any = DType.float32,
        device: str = "cpu",
        seed: int = 0,
        device_mesh: Sequence[int] | None = None,
    ):
        super().__init__(dtype, device, seed)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(f"torch cannot use the device '{device}': {str(error).splitlines()[0]}") from error
        self.mesh = None if device_mesh is None else self._open_mesh(tuple(device_mesh))

    def _open_mesh(self, sizes: tuple[int, ...]) -> Any:
        from torch.distributed import get_world_size, is_available, is_initialized
        from torch.distributed.device_mesh import init_device_mesh

        if not (is_available() and is_initialized()):
            raise BackendError(
                f"device_mesh {sizes} needs a process group: start with torchrun and call "
                "torch.distributed.init_process_group first."
            )
        if int(np.prod(sizes)) != get_world_size():
            raise BackendError(f"device_mesh {sizes} must have as many places as processes, {get_world_size()}.")
        return init_device_mesh(torch.device(str(self.device)).type, sizes)

    def native(self, dtype: DType) -> torch.dtype:
        return getattr(torch, dtype.value)

    def place(self, value: np.ndarray, dtype: DType) -> torch.Tensor:
        return torch.tensor(value, dtype=self.native(dtype), device=self.device)

    def array(self, value: Any, dtype: Any = None, shard: Sequence[int | None] | None = None) -> Any:
        """As in `Backend`; `shard` names, per axis, the mesh axis it is cut along (None: not cut)."""
        made = super().array(value, dtype)
        if self.mesh is None:
            if shard is not None:
                raise BackendError(f"shard {tuple(shard)} needs a TorchBackend with a device_mesh.")
            return made
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor

        cut = {axis: place for place, axis in enumerate(shard or ()) if axis is not None}
        placements = [Shard(cut[axis]) if axis in cut else Replicate() for axis in range(self.mesh.ndim)]
        return distribute_tensor(made, self.mesh, placements)

    def is_array(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    def to_numpy(self, value: torch.Tensor) -> np.ndarray:
        value = value.full_tensor() if hasattr(value, "full_tensor") else value
        value = value.float() if value.dtype is torch.bfloat16 else value
        return value.detach().cpu().numpy()

    def lay_out(self, weight: torch.Tensor) -> torch.Tensor:
        """Channels last, which oneDNN and cuDNN prefer."""
        return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight

    def prepare(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, making its own tensors on this backend's device."""
        if torch.device(str(self.device)).type == "cpu":
            return function

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.device(str(self.device)):
                return function(*args, **kwargs)

        return run

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.prepare(torch.compile(function))

    def vjp(self, function: Callable[[Arrays], Arrays], params: Arrays) -> Any:
        leaves = {key: value.detach().requires_grad_(value.is_floating_point()) for key, value in params.items()}
        outputs = dict(function(leaves))

        def pullback(grads: Arrays) -> dict[str, Any]:
            wanted = {k: v for k, v in leaves.items() if v.requires_grad}
            given = {k: g for k, g in grads.items() if outputs[k].requires_grad}
            found = torch.autograd.grad(
                [outputs[k] for k in given],
                list(wanted.values()),
                [g.to(outputs[k].dtype).reshape(outputs[k].shape) for k, g in given.items()],
                retain_graph=True,
                allow_unused=True,
            ) if given else [None] * len(wanted)  # fmt: skip
            reached = dict(zip(wanted, found))
            return {k: torch.zeros_like(v) if reached.get(k) is None else reached[k] for k, v in params.items()}

        return {k: v.detach() for k, v in outputs.items()}, pullback
