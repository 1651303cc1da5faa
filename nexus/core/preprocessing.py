"""How an image becomes a model's input: facts that travel with the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from nexus.core.config import Config, shown

LARGEST_SIDE = 1 << 14
"""Pixels of a side of an image that a configuration may ask for."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "spline"]
Levels = Literal["type", "image"]
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Config):
    """Resize, centre crop, scale to [0, 1], then subtract `mean` and divide by `std` per channel.

    Attributes:
        image_size: (height, width) in pixels of what the model sees.
        resize: "shorter" scales the shorter side to `resize_size` and crops the centre, "squash" resizes
            straight to `image_size` ignoring the aspect ratio (or, given (height, width) as `resize_size`, to that,
            and crops the centre), "crop" crops the centre alone, "within" scales the shorter side to `resize_size`,
            or less where the longer would exceed that of `image_size`, and crops nothing (detectors), "patches"
            scales to whole patches of `resize_size` pixels, at most as many as `image_size` has, and nearly keeps the
            proportions (SigLIP 2's NaFlex), "none" expects the right size.
        resize_size: Pixels of the shorter side before the crop; None means the smaller side of `image_size`.
            With "squash": (height, width) before the crop; None means no crop. With "patches": a side of one.
        interpolation: Filter of the resize (always antialiased): Pillow's, or "spline", a cubic spline through the
            pixels after a Gaussian, as scikit-image has it at order 3.
        rounding: Whose choice of whole pixels is followed where the centre, or a side of an image scaled "within", lies
            between two: "torchvision", "transformers", or "sam" (the nearest one, as Segment Anything has it).
        levels: What becomes 0 and 1: "type" the lowest and highest number of 8 or 16 bits (floats stay as they are),
            "image" those of the image itself after the resize, all channels together.
        mean: Per channel, in units of the [0, 1] range; its length is the number of channels.
        std: Per channel, likewise.
    """

    image_size: tuple[int, int] = (224, 224)
    resize: Literal["shorter", "squash", "within", "crop", "patches", "none"] = "shorter"
    resize_size: int | tuple[int, int] | None = None
    interpolation: Interpolation = "bicubic"
    rounding: Literal["torchvision", "transformers", "sam"] = "torchvision"
    levels: Levels = "type"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std has {len(self.std)}; they must agree.")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; every value must be above 0.")
        if isinstance(self.resize_size, tuple) != (self.resize == "squash" and self.resize_size is not None):
            raise ValueError(
                f"resize_size is {self.resize_size} with resize {self.resize!r}; it is (height, width) with 'squash'"
                " and one number otherwise."
            )
        if self.resize == "patches" and (not isinstance(self.resize_size, int) or self.resize_size < 1):
            raise ValueError(f"resize_size is {self.resize_size}; with resize 'patches' it is a side of one in pixels.")
        resized = (1,) if self.resize_size is None else self.resize_size
        for name, sides in {"image_size": self.image_size, "resize_size": resized}.items():
            if max(sides if isinstance(sides, tuple) else (sides,)) > LARGEST_SIDE:
                raise ValueError(f"{name} is {shown(sides)}; a side has at most {LARGEST_SIDE} pixels.")
        if min(resized if isinstance(resized, tuple) else (resized,)) < 1:
            raise ValueError(f"resize_size is {shown(self.resize_size)}; it must be at least 1 pixel.")
        if min(self.image_size) < 1:
            raise ValueError(f"image_size is {self.image_size}; both sides must be at least 1 pixel.")

    def fitted(self, changes: Mapping[str, Any]) -> Self:
        """Returns the preprocessing for a model whose `image_size` or `in_channels` were changed.

        The crop keeps its share of the image. Other channels than three get the means of the old `mean` and `std`.
        """
        fields: dict[str, Any] = {}
        size = changes.get("image_size")
        if size is not None:
            sides = (size, size) if isinstance(size, int) else tuple(size)
            fields["image_size"] = sides
            if isinstance(self.resize_size, tuple):
                pairs = zip(self.resize_size, sides, self.image_size)
                fields["resize_size"] = tuple(round(before * new / old) for before, new, old in pairs)
            elif self.resize_size is not None and self.resize != "patches":
                fields["resize_size"] = round(self.resize_size * min(sides) / min(self.image_size))
        channels = changes.get("in_channels", self.in_channels)
        if channels != self.in_channels:
            fields["mean"] = (sum(self.mean) / self.in_channels,) * channels
            fields["std"] = (sum(self.std) / self.in_channels,) * channels
        return self.replace(**fields)

    @property
    def in_channels(self) -> int:
        """Number of channels that the model sees."""
        return len(self.mean)
