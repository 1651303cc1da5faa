"""The PyTorch backend."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mithril.backends.base import Arrays, Backend, P, R
from mithril.errors import BackendError
from mithril.types import Array, DType


class TorchBackend(Backend):
    """Runs generated source on PyTorch.

    Args:
        device: "cpu" (None too), "cuda:1", "mps", ...
        device_mesh: arrays are DTensors on the processes that torchrun started, and what process 0 gives counts.
    """

    name = "torch"
    xp = "torch"
    imports = ("import math", "import torch", "import torch.nn.functional as F")
    kernels = ("torch.kernels",)

    def open_device(self, device: str | None) -> torch.device:
        try:
            return torch.empty(0, device=device or "cpu").device
        except (RuntimeError, AssertionError) as error:
            raise BackendError(f"torch cannot use the device '{device}': {str(error).splitlines()[0]}") from error

    def open_mesh(self) -> object:
        from torch.distributed import get_world_size, is_available, is_initialized, is_torchelastic_launched
        from torch.distributed.device_mesh import init_device_mesh

        sizes = tuple(self.mesh_axes.values())
        if not (is_available() and (is_initialized() or is_torchelastic_launched())):
            raise BackendError(f"device_mesh {sizes} needs a process group: start with torchrun.")
        count = get_world_size() if is_initialized() else int(os.environ["WORLD_SIZE"])
        if math.prod(sizes) != count:
            raise BackendError(f"device_mesh {sizes} needs {math.prod(sizes)} processes, there are {count}.")
        return init_device_mesh(self._device.type, sizes, mesh_dim_names=tuple(self.mesh_axes))

    def native(self, dtype: DType) -> torch.dtype:
        return getattr(torch, dtype.value)

    def place(self, value: np.ndarray, dtype: DType) -> torch.Tensor:
        return torch.tensor(value, dtype=self.native(dtype), device=self._device)

    def spread(self, value: np.ndarray, dtype: DType, cuts: Sequence[str | None]) -> torch.Tensor:
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor

        placements = [Shard(cuts.index(axis)) if axis in cuts else Replicate() for axis in self.mesh_axes]
        return distribute_tensor(self.place(value, dtype), self.mesh, placements)

    def placed_like(self, values: Arrays, models: Arrays) -> dict[str, Array]:
        cuts = {k: getattr(models.get(k), "placements", None) for k in values}
        return {k: v.redistribute(placements=cuts[k]) if cuts[k] else v for k, v in values.items()}

    def is_array(self, value: object) -> bool:
        return isinstance(value, torch.Tensor)

    def to_numpy(self, value: torch.Tensor) -> np.ndarray:
        value = value.full_tensor() if hasattr(value, "full_tensor") else value
        value = value.float() if value.dtype is torch.bfloat16 else value
        return value.detach().cpu().numpy()

    def lay_out(self, weight: torch.Tensor) -> torch.Tensor:
        """Channels last, which oneDNN and cuDNN prefer."""
        return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight

    def scope(self) -> Any:
        return None if self._device.type == "cpu" else self._device

    def prepare(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, making its own tensors on this backend's device or mesh."""
        if self.mesh is None:
            return super().prepare(function)
        from mithril.backends.torch.sharding import on_mesh

        return on_mesh(super().prepare(function))

    def jit(self, function: Callable[P, R]) -> Callable[P, R]:
        return self.prepare(torch.compile(function))

    def _cotangent(self, output: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """A gradient of the output's dtype and shape, on the mesh if there is one."""
        grad = grad.to(output.dtype).reshape(output.shape)
        spread: Any = grad if self.mesh is None or hasattr(grad, "placements") else self.array(grad, grad.dtype)
        return spread

    def vjp(
        self, function: Callable[[Arrays], Arrays], params: Arrays
    ) -> tuple[Arrays, Callable[[Arrays], dict[str, Array]]]:
        leaves = {key: value.detach().requires_grad_(value.is_floating_point()) for key, value in params.items()}
        outputs = dict(function(leaves))

        def pullback(grads: Arrays) -> dict[str, Array]:
            wanted = {k: v for k, v in leaves.items() if v.requires_grad}
            given = {k: g for k, g in grads.items() if outputs[k].requires_grad}
            seeds = [self._cotangent(outputs[k], g) for k, g in given.items()]
            ends = [outputs[k] for k in given], list(wanted.values()), seeds
            found = torch.autograd.grad(*ends, retain_graph=True, allow_unused=True) if given else ()
            reached = {k: g for k, g in zip(wanted, found) if g is not None}
            return {k: reached[k] if k in reached else torch.zeros_like(v) for k, v in params.items()}

        return {k: v.detach() for k, v in outputs.items()}, pullback
