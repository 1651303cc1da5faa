"""Maps of a backbone for somebody else's head: which there are, and a model that gives only them.

Dims: b batch, c channels, h w places of a map.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nexus.core.module import NexusModule
from nexus.core.outline import outlined
from nexus.core.preprocessing import Preprocessing

TOKEN_MAPS = 3
"""Maps of a transformer that are given where none are chosen, as timm does: the last three."""


class FeatureInfo(Sequence[dict[str, Any]]):
    """What is known of each map, in timm's words: `num_chs`, `reduction` (pixels of a step) and `module`."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Takes the module that gives a map, its channels and its stride, from fine to coarse or first to last."""
        self._rows = [{"num_chs": width, "reduction": stride, "module": name} for name, width, stride in rows]

    def channels(self) -> list[int]:
        """Returns the channels of each map."""
        return [row["num_chs"] for row in self._rows]

    def reduction(self) -> list[int]:
        """Returns the stride of each map in pixels."""
        return [row["reduction"] for row in self._rows]

    def module_name(self) -> list[str]:
        """Returns the module that gives each map."""
        return [row["module"] for row in self._rows]

    def only(self, indices: Iterable[int]) -> "FeatureInfo":
        """Returns what is known of some of the maps."""
        rows = (self._rows[index] for index in indices)
        return FeatureInfo((row["module"], row["num_chs"], row["reduction"]) for row in rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        rows = (f"{row['module']}: {row['num_chs']} channels, stride {row['reduction']}" for row in self._rows)
        return f"FeatureInfo({'; '.join(rows)})"


class FeatureMaps(nn.Module):
    """A backbone that gives a list of maps (b, c, h, w), as `create_model(name, features_only=True)` returns it.

    Layers that none of the maps depends on are left out, so every parameter that remains is trained.

    Attributes:
        backbone: The model, without what comes after the last map.
        out_indices: Which of its maps are given, in rising order.
        feature_info: What is known of them.
    """

    def __init__(self, backbone: Any, out_indices: int | Sequence[int] | None = None) -> None:
        """Takes maps of a classifier.

        Args:
            backbone: Any model that has `feature_info` and `forward_maps`; its layers are taken over, not copied.
            out_indices: Numbers of maps, negative ones from the end, or how many of the last. None: as timm, the last
                three blocks of a transformer, all maps of others.

        Raises:
            ValueError: The model has no maps, or fewer than the indices say.
        """
        super().__init__()
        check_backbone(type(backbone))
        info: FeatureInfo = backbone.feature_info
        if out_indices is None:
            tokens = backbone.token_layout((1, 1)) is not None
            out_indices = min(TOKEN_MAPS, len(info)) if tokens else len(info)
        self.out_indices = chosen(out_indices, len(info))
        self.feature_info = info.only(self.out_indices)
        drop_unread(backbone, self.out_indices)
        self.backbone: Any = backbone

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image becomes the backbone's input."""
        return self.backbone.preprocessing

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Returns the maps of normalized images, in rising order of their numbers."""
        maps = self.backbone.forward_maps(images, self.out_indices[-1] + 1)
        return [maps[index] for index in self.out_indices]


def check_backbone(model_class: type[NexusModule]) -> None:
    """Raises ValueError if models of this class have no maps to give."""
    if not hasattr(model_class, "feature_info"):
        raise ValueError(f"features_only needs a classifier, with maps to give; {model_class.__name__} is none.")


def chosen(out_indices: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Returns numbers of maps in rising order.

    Raises:
        ValueError: There are no such maps, or none is asked for.
    """
    wanted = range(-out_indices, 0) if isinstance(out_indices, int) else out_indices
    if not len(wanted) or not all(-count <= index < count for index in wanted):
        raise ValueError(f"out_indices is {out_indices}; there are {count} maps, 0 to {count - 1} (or -{count} to -1).")
    return tuple(sorted({index % count for index in wanted}))


def drop_unread(model: Any, indices: Sequence[int]) -> None:
    """Replaces layers by the identity whose parameters none of these maps depends on, found without any numbers.

    A parameter of that kind that belongs to no such layer (DINOv2's mask token) is frozen.
    """
    size = getattr(model.config, "image_size", 64)
    height, width = (size, size) if isinstance(size, int) else size
    with outlined(), torch.enable_grad():
        probe = type(model)(model.config).eval()
        maps = probe.forward_maps(torch.zeros(1, model.config.in_channels, height, width), indices[-1] + 1)
        torch.stack([maps[index].sum() for index in indices]).sum().backward()
    read = {name for name, parameter in probe.named_parameters() if parameter.grad is not None}
    kept: list[tuple[str, nn.Module]] = [("", model)]
    for prefix, parent in kept:
        for key, child in parent.named_children():
            held = [f"{prefix}{key}.{name}" for name, _ in child.named_parameters()]
            if held and read.isdisjoint(held) and not isinstance(child, nn.ModuleList):
                setattr(parent, key, nn.Identity())
            else:
                kept.append((f"{prefix}{key}.", child))
    for name, parameter in model.named_parameters():
        if name not in read:
            parameter.requires_grad_(False)
