"""Batch normalization whose statistics and affine terms are constants, as detectors use in their backbones."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with fixed statistics; all four vectors are buffers, so that nothing of it is trained.

    Args:
        num_features: Channels.
        eps: Added to the variance. Some published detectors were trained with 0 (see `nexus.models.cv.rcnn`).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


def freeze_batch_norm(module: nn.Module, *, eps: float = 1e-5) -> None:
    """Replaces every `BatchNorm2d` inside `module` by a frozen one that holds its values."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps)
            state = {key: value for key, value in child.state_dict().items() if key != "num_batches_tracked"}
            frozen.load_state_dict(state, assign=True)
            for buffer in frozen.buffers():
                buffer.requires_grad_(False)
            setattr(module, name, frozen)
        else:
            freeze_batch_norm(child, eps=eps)
