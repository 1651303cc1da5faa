"""Rows of a card's `weights` for the places where most files are published."""

from collections.abc import Mapping
from typing import Any

from nexus.core.card import Metric, Weights
from nexus.core.preprocessing import HALF, IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing

IMAGENET_TOP1 = "imagenet-1k top-1"
TIMM_RESULTS = "timm results/results-imagenet.csv at 0173a13"
TORCHVISION_RESULTS = "torchvision 0.28 weights metadata"


def timm_weights(
    name: str,
    tag: str,
    *,
    image_size: int = 224,
    crop: float = 0.9,
    interpolation: Interpolation = "bicubic",
    imagenet_mean: bool = False,
    licence: str = "apache-2.0",
    top1: float | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Weights:
    """Returns the file that timm keeps on the hub as `timm/<name>.<tag>`, evaluated as timm does.

    Args:
        name: timm's name of the variant, which is ours.
        tag: timm's tag.
        image_size: Side in pixels of what the model sees.
        crop: Share of the shorter side that the centre crop keeps.
        interpolation: Filter of the resize.
        imagenet_mean: Normalized with ImageNet's mean and deviation, rather than with 0.5.
        licence: Of the weights.
        top1: Accuracy in percent that timm measured.
        changes: Fields of the configuration that differ from the card's.
    """
    return Weights(
        tag=tag,
        url=f"hf-hub:timm/{name}.{tag}",
        licence=licence,
        preprocessing=Preprocessing(
            image_size=(image_size, image_size),
            resize_size=int(image_size / crop),
            interpolation=interpolation,
            mean=IMAGENET_MEAN if imagenet_mean else HALF,
            std=IMAGENET_STD if imagenet_mean else HALF,
        ),
        changes=changes or {},
        metrics=() if top1 is None else (Metric(name=IMAGENET_TOP1, value=top1, source=TIMM_RESULTS),),
    )


def torchvision_weights(
    tag: str,
    file: str,
    *,
    top1: float,
    image_size: int = 224,
    resize_size: int = 256,
    interpolation: Interpolation = "bilinear",
    licence: str = "bsd-3-clause",
) -> Weights:
    """Returns a file of torchvision; the eight digits in its name are the first of its sha256.

    Args:
        tag: How it is called here.
        file: Its name under download.pytorch.org/models, such as `resnet50-11ad3fa6.pth`.
        top1: Accuracy in percent that torchvision states.
        image_size: Side in pixels of the centre crop.
        resize_size: Pixels of the shorter side before it.
        interpolation: Filter of the resize.
        licence: Of the weights.
    """
    return Weights(
        tag=tag,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        licence=licence,
        preprocessing=Preprocessing(
            image_size=(image_size, image_size), resize_size=resize_size, interpolation=interpolation
        ),
        metrics=(Metric(name=IMAGENET_TOP1, value=top1, source=TORCHVISION_RESULTS),),
    )
