"""A convolution and its normalization, which evaluation can make one.

Dims: b images, c d channels, h w places of a map.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size (up to its stride), batch normalization, and an activation."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        act: nn.Module | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_dim, eps=eps, momentum=momentum)
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Puts the normalization, as it acts in evaluation, into the convolution; a second call changes nothing."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = folded(self.conv, self.norm), nn.Identity()


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Returns one convolution that does what `conv` and then `norm` do in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    one = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (conv.kernel_size[0], conv.kernel_size[1]),
        (conv.stride[0], conv.stride[1]),
        conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1]),
        (conv.dilation[0], conv.dilation[1]),
        conv.groups,
    ).to(conv.weight)
    assert one.bias is not None
    with torch.no_grad():
        one.weight.copy_(conv.weight * scale[:, None, None, None])
        one.bias.copy_(norm.bias - norm.running_mean * scale)
        if conv.bias is not None:
            one.bias += conv.bias * scale
    return one
