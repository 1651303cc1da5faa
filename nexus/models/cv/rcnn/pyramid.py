"""The trunk of the R-CNN family: a registered backbone and the feature pyramid on its maps."""

from functools import cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.registry import create_model
from nexus.layers.fpn import FeaturePyramid
from nexus.layers.frozen_norm import freeze_batch_norm

STRIDES = (4, 8, 16, 32)


class Maps(NamedTuple):
    """Which of a backbone's features the pyramid takes, from fine to coarse, and their channels."""

    index: tuple[int, ...]
    dims: tuple[int, ...]


@cache
def backbone_maps(name: str, in_channels: int) -> Maps:
    """Returns where the last maps of strides 4, 8, 16 and 32 stand among a registered backbone's `features`.

    Raises:
        ValueError: The backbone is unknown, or does not give these maps.
    """
    side = 4 * STRIDES[-1]
    with torch.device("meta"), torch.no_grad():
        probe = create_model(name, num_classes=0, in_channels=in_channels).eval()
        features = probe(torch.zeros(1, in_channels, side, side))["features"]
    last = {side // x.shape[-1]: (index, x.shape[1]) for index, x in enumerate(features) if x.ndim == 4}
    missing = [stride for stride in STRIDES if stride not in last]
    if missing:
        raise ValueError(
            f"{name} gives no feature maps of stride {missing}; the pyramid needs {list(STRIDES)}, as a ResNet gives."
        )
    index, dims = zip(*(last[stride] for stride in STRIDES))
    return Maps(index, dims)


class PyramidBackbone(nn.Module):
    """Backbone and pyramid: an image becomes maps of one width, of strides 4, 8, 16, 32 and 64.

    Args:
        name: A registered backbone.
        in_channels: Of the images.
        out_dim: Channels of every level.
        norm: "batch", or "frozen" for batch normalization in the backbone that is never trained.
        norm_eps: Of the frozen normalization.
        pyramid_norm: Batch normalization in the pyramid.
        num_frozen_stages: How many parts of a ResNet are not trained: 1 is the stem, 2 also the first stage, ...
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        out_dim: int,
        *,
        norm: Literal["batch", "frozen"],
        norm_eps: float,
        pyramid_norm: bool,
        num_frozen_stages: int,
    ) -> None:
        super().__init__()
        self.maps = backbone_maps(name, in_channels)
        self.body: NexusModule = create_model(name, num_classes=0, in_channels=in_channels)
        if norm == "frozen":
            freeze_batch_norm(self.body, eps=norm_eps)
        freeze_stages(self.body, num_frozen_stages)
        self.fpn = FeaturePyramid(self.maps.dims, out_dim, norm=pyramid_norm)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d _ _"]]:
        """Returns the levels P2 to P6."""
        features = self.body(images)["features"]
        return self.fpn([features[index] for index in self.maps.index])


def freeze_stages(body: nn.Module, num_stages: int) -> None:
    """Stops the training of the first parts of a ResNet: its stem, then its stages.

    Raises:
        ValueError: The backbone has no parts of these names.
    """
    for prefix in (("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",))[:num_stages]:
        frozen = [parameter for key, parameter in body.named_parameters() if key.startswith(prefix)]
        if not frozen:
            raise ValueError(f"num_frozen_stages is {num_stages}; {type(body).__name__} has no {prefix[0]} to freeze.")
        for parameter in frozen:
            parameter.requires_grad_(False)
