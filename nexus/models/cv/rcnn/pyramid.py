"""The trunk of the R-CNN family: a registered backbone and the feature pyramid on its maps."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.outline import outlined
from nexus.layers import channels_last
from nexus.layers.fpn import FeaturePyramid
from nexus.layers.frozen_norm import freeze_batch_norm
from nexus.layers.simple_pyramid import SimplePyramid
from nexus.models.registry import create_model

STRIDES = (4, 8, 16, 32)
TOKEN_STRIDE = 16
OWN_KEYS = ("num_classes", "in_channels")
THAT_WORK = "Maps come from resnet*, swin_* and efficientnet_*, tokens from vit_*_patch16_*."


class Maps(NamedTuple):
    """What a pyramid takes from a backbone.

    Attributes:
        index: Places of the maps among its `features`, from fine to coarse; only the last if they are tokens.
        dims: Their channels.
        tokens: Whether they are sequences of tokens, as a plain vision transformer gives.
        unread: Parameters that no map depends on, such as those before the classifier.
    """

    index: tuple[int, ...]
    dims: tuple[int, ...]
    tokens: bool
    unread: frozenset[str]


def backbone_parts(backbone: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the registered name of a backbone, and the changes of its configuration.

    Args:
        backbone: `"resnet18"`, or `{"name": "resnet18", "hidden_dim": 16}`.

    Raises:
        ValueError: A mapping has no name, or changes what the detector itself decides.
    """
    if isinstance(backbone, str):
        return backbone, {}
    changes = dict(backbone)
    name = changes.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"backbone is {dict(backbone)}; it needs a name, such as {{'name': 'resnet18'}}.")
    for key in OWN_KEYS:
        if key in changes:
            raise ValueError(f"backbone sets {key} to {changes[key]!r}; leave it out, the detector sets it.")
    return name, changes


def make_backbone(backbone: str | Mapping[str, Any], in_channels: int) -> NexusModule:
    """Returns a registered model without its head."""
    name, changes = backbone_parts(backbone)
    return create_model(name, num_classes=0, in_channels=in_channels, **changes)


def backbone_maps(backbone: str | Mapping[str, Any], in_channels: int) -> Maps:
    """Returns what a registered backbone gives, found by a pass without numbers on the meta device.

    Args:
        backbone: Its name, or a mapping with `name` and changes of its configuration.
        in_channels: Of the images.

    Raises:
        ValueError: The backbone is unknown, or gives neither maps of strides 4, 8, 16, 32 nor tokens of stride 16.
    """
    name, changes = backbone_parts(backbone)
    return _found_maps(name, json.dumps(changes, sort_keys=True), in_channels)


@cache
def _found_maps(name: str, changes: str, in_channels: int) -> Maps:
    side = 4 * STRIDES[-1]
    with outlined():
        try:
            probe = create_model(name, num_classes=0, in_channels=in_channels, **json.loads(changes)).eval()
            with torch.enable_grad():
                features = probe(torch.zeros(1, in_channels, side, side))["features"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name} cannot be the backbone of a detector: {error} {THAT_WORK}") from error
        last = {side // x.shape[-1]: index for index, x in enumerate(features) if x.ndim == 4}
        layout = probe.token_layout((side, side))
        if layout is not None and features[-1].ndim == 3 and side // layout.height == TOKEN_STRIDE:
            index = (len(features) - 1,)
        elif all(stride in last for stride in STRIDES):
            index = tuple(last[stride] for stride in STRIDES)
        else:
            raise ValueError(
                f"{name} gives feature maps of the strides {sorted(last)}; a detector needs {list(STRIDES)}, or tokens "
                f"of stride {TOKEN_STRIDE}. {THAT_WORK}"
            )
        with torch.enable_grad():
            torch.stack([features[place].sum() for place in index]).sum().backward()
    unread = frozenset(key for key, parameter in probe.named_parameters() if parameter.grad is None)
    tokens = features[index[-1]].ndim == 3
    dims = tuple(features[place].shape[-1 if tokens else 1] for place in index)
    return Maps(index, dims, tokens, unread)


class PyramidBackbone(nn.Module):
    """Backbone and pyramid: an image becomes maps of one width, of strides 4, 8, 16, 32 and 64.

    Args:
        backbone: Name of a registered model, or a mapping with `name` and changes of its configuration.
        in_channels: Of the images.
        out_dim: Channels of every level.
        norm: "batch", or "frozen" for batch normalization in the backbone that is never trained.
        norm_eps: Of the frozen normalization.
        pyramid_norm: Batch normalization in the pyramid; that of a plain transformer always has layer normalization.
        num_frozen_stages: How many parts of a ResNet are not trained: 1 is the stem, 2 also the first stage, ...
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        in_channels: int,
        out_dim: int,
        *,
        norm: Literal["batch", "frozen"],
        norm_eps: float,
        pyramid_norm: bool,
        num_frozen_stages: int,
    ) -> None:
        super().__init__()
        self.maps = backbone_maps(backbone, in_channels)
        self.body = make_backbone(backbone, in_channels)
        if norm == "frozen":
            freeze_batch_norm(self.body, eps=norm_eps)
        freeze_stages(self.body, num_frozen_stages)
        for key, parameter in self.body.named_parameters():
            if key in self.maps.unread:
                parameter.requires_grad_(False)
        if self.maps.tokens:
            self.fpn = SimplePyramid(self.maps.dims[0], out_dim)
        else:
            self.fpn = FeaturePyramid(self.maps.dims, out_dim, norm=pyramid_norm)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d _ _"]]:
        """Returns the levels P2 to P6."""
        features = self.body(channels_last(images))["features"]
        maps = [features[index] for index in self.maps.index]
        layout = self.body.token_layout((images.shape[-2], images.shape[-1]))
        if self.maps.tokens:
            assert layout is not None
            maps = [rearrange(x[:, layout.prefix :], "b (h w) d -> b d h w", h=layout.height) for x in maps]
        return self.fpn(maps)


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
