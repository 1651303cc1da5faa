"""preprocessor_config.json of transformers: what its image processors do with their keys, as a `Preprocessing`.

What a `Preprocessing` cannot say (images of a size that follows from their own without a crop, filters that are not
here) is refused by name. https://huggingface.co/docs/transformers/main_classes/image_processor
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.core.config import nearest
from nexus.core.documents import FileError
from nexus.core.foreign import ForeignSettings
from nexus.core.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST_SIDE,
    Interpolation,
    Preprocessing,
)

FILE = "preprocessor_config.json"
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""The numbers of PIL's filters."""
_BILINEAR, _BICUBIC = 2, 3
_SQUARE = {"height": 224, "width": 224}

WITHOUT_EFFECT = frozenset(
    [
        "image_processor_type",
        "feature_extractor_type",
        "processor_class",
        "_valid_processor_keys",
        "auto_map",
        "do_convert_rgb",
        "format",
        "do_convert_annotations",
        "return_tensors",
        "device",
        "disable_grouping",
        "input_data_format",
        "image_seq_length",
        "return_segmentation_masks",
        "masks_path",
        "padding_mode",
        "fill_value",
    ]
)
"""Keys that do not change the pixels of an RGB image: names, annotations, kinds of tensors."""


@dataclass(frozen=True, kw_only=True)
class _Processor:
    """What an image processor of transformers does where its file does not say.

    Attributes:
        size, crop_size: As its file would have them.
        square: Whether a plain number as `size` is both sides; else it is the shorter one.
        detects: Whether its images keep their proportions and are padded to batches.
    """

    size: Mapping[str, int]
    crop_size: Mapping[str, int] | None = None
    crop: bool = False
    resample: int = _BILINEAR
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    normalize: bool = True
    square: bool = True
    detects: bool = False


_CLIP = _Processor(
    size={"shortest_edge": 224},
    crop_size=_SQUARE,
    crop=True,
    resample=_BICUBIC,
    mean=CLIP_MEAN,
    std=CLIP_STD,
    square=False,
)
PROCESSORS = {
    "ViTImageProcessor": _Processor(size=_SQUARE),
    "DeiTImageProcessor": _Processor(
        size={"height": 256, "width": 256}, crop_size=_SQUARE, crop=True, resample=_BICUBIC
    ),
    "CLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "ConvNextImageProcessor": _Processor(size={"shortest_edge": 384}, resample=_BICUBIC, square=False),
    "EfficientNetImageProcessor": _Processor(
        size={"height": 346, "width": 346}, crop_size={"height": 289, "width": 289}, resample=_BICUBIC
    ),
    "SiglipImageProcessor": _Processor(size=_SQUARE, resample=_BICUBIC, square=False),
    "Siglip2ImageProcessor": _Processor(size={}),
    "DetrImageProcessor": _Processor(
        size={"shortest_edge": 800, "longest_edge": 1333},
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        square=False,
        detects=True,
    ),
    "RTDetrImageProcessor": _Processor(
        size={"height": 640, "width": 640},
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        normalize=False,
        square=False,
        detects=True,
    ),
    "SamImageProcessor": _Processor(size={"longest_edge": 1024}, mean=IMAGENET_MEAN, std=IMAGENET_STD),
}
_OF_MODELS = {
    "vit": "ViT",
    "vit_mae": "ViT",
    "swin": "ViT",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "efficientnet": "EfficientNet",
    "resnet": "ConvNext",
    "clip": "CLIP",
    "siglip": "Siglip",
    "siglip2": "Siglip2",
    "detr": "Detr",
    "rt_detr": "RTDetr",
    "rt_detr_v2": "RTDetr",
    "sam": "Sam",
}


def preprocessing_from_hub(values: Any, model_type: str = "vit", where: str = FILE) -> Preprocessing:
    """Returns the preprocessing that a preprocessor_config.json describes.

    Args:
        values: Its content.
        model_type: Of the model, for files that do not name their processor.
        where: Its path, for messages.

    Raises:
        FileError: A key or value is wrong, or says something that cannot be done here.
    """
    settings = ForeignSettings(values, where)
    name = settings.text("image_processor_type", settings.text("feature_extractor_type", ""))
    name = name.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    name = name or f"{_OF_MODELS.get(model_type, 'ViT')}ImageProcessor"
    if name not in PROCESSORS:
        raise FileError(
            f"{where} names the processor {name!r:.80}, which is not known here. {nearest(name[:80], PROCESSORS)}"
        )
    processor = PROCESSORS[name]
    mean, std = _numbers(settings, processor, offset=name.startswith("EfficientNet"))
    if name.startswith("ConvNext"):
        sizes = _convnext_sizes(settings)
    elif name.startswith("Siglip2"):
        sizes = _patch_sizes(settings)
    elif name.startswith("Sam"):
        sizes = _longest_sizes(settings, processor)
    else:
        sizes = _sizes(settings, processor)
        settings.expect(do_pad=(processor.detects, True, False) if not settings.get("pad_size") else False)
    settings.expect(do_reduce_labels=False, data_format=("channels_first", "ChannelDimension.FIRST"))
    settings.get("pad_and_return_pixel_mask")
    settings.get("pad_size")
    settings.finish(WITHOUT_EFFECT)
    sizes.setdefault("rounding", "transformers")
    return Preprocessing(mean=mean, std=std, **sizes)


def _numbers(
    settings: ForeignSettings, processor: _Processor, offset: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and std, in units of [0, 1], that do the rescaling and both normalizations in one step."""
    scale = settings.number("rescale_factor", 1 / 255)
    if not settings.boolean("do_rescale", True):
        scale = 1.0
    if not 1e-8 < scale < 1e8:
        raise settings.refuse("rescale_factor", "it must be above 0")
    mean, std = _channels(settings, "image_mean", processor.mean), _channels(settings, "image_std", processor.std)
    if len(mean) != len(std) or min(std) < 1e-8:
        raise settings.refuse("image_std", "it must have a number above 0 for every channel of image_mean")
    shift = (
        1.0 if offset and settings.boolean("rescale_offset", False) and settings.boolean("do_rescale", True) else 0.0
    )
    again = std if offset and settings.boolean("include_top", True) else (1.0,) * len(std)
    if not settings.boolean("do_normalize", processor.normalize):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    unit = 255 * scale
    return tuple((m + shift) / unit for m in mean), tuple(s * a / unit for s, a in zip(std, again))


def _channels(settings: ForeignSettings, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = settings.get(key, default)
    return (
        settings.numbers(key, default)
        if isinstance(value, list | tuple)
        else (settings.number(key, 0.0),) * len(default)
    )


def _interpolation(settings: ForeignSettings, default: int) -> Interpolation:
    code = settings.integer("resample", default)
    if code not in _RESAMPLE:
        raise settings.refuse(
            "resample", f"it must be one of {', '.join(f'{n} ({name})' for n, name in _RESAMPLE.items())}"
        )
    return _RESAMPLE[code]


def _size(settings: ForeignSettings, key: str, default: Mapping[str, int], square: bool) -> dict[str, int]:
    """Returns a size as the mapping that it is, or is short for."""
    value = settings.get(key, default)
    if isinstance(value, int) and not isinstance(value, bool):
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list | tuple) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if not isinstance(value, Mapping):
        raise settings.refuse(key, "it must be a number of pixels, two of them, or a mapping")
    sides = {str(name): side for name, side in value.items() if side is not None}
    for side in sides.values():
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= LARGEST_SIDE:
            raise settings.refuse(key, f"every side must be a whole number of pixels, at most {LARGEST_SIDE}")
    return sides


def _box(settings: ForeignSettings, key: str, sides: Mapping[str, int]) -> tuple[int, int]:
    if sides.keys() != {"height", "width"}:
        resizes, crops = settings.get("do_resize"), settings.get("do_center_crop")
        why = f"with do_resize {resizes} and do_center_crop {crops} images would have no common size"
        raise settings.refuse(key, f"{dict(sides)} is not height and width; {why}")
    return sides["height"], sides["width"]


Sizes = dict[str, Any]


def _sizes(settings: ForeignSettings, processor: _Processor) -> Sizes:
    """Returns the fields of a `Preprocessing` that say how an image comes to its size."""
    interpolation = _interpolation(settings, processor.resample)
    size = _size(settings, "size", processor.size, processor.square)
    limit = settings.get("max_size")
    if processor.detects and size.keys() == {"shortest_edge"}:
        size["longest_edge"] = settings.integer("max_size", 1333, 1)
    elif limit is not None and not processor.detects:
        raise settings.refuse("max_size", "it is read for detectors only")
    resizes = settings.boolean("do_resize", True)
    crops = settings.boolean("do_center_crop", processor.crop)
    crop_size = _size(settings, "crop_size", processor.crop_size or {}, True)
    if crops and processor.detects:
        raise settings.refuse("do_center_crop", "a detector's images are not cropped")
    if crops:
        box = _box(settings, "crop_size", crop_size)
        if not resizes:
            return {"image_size": box, "resize": "crop"}
        if size.keys() == {"shortest_edge"}:
            return {"image_size": box, "resize_size": size["shortest_edge"], "interpolation": interpolation}
        return {
            "image_size": box,
            "resize": "squash",
            "resize_size": _box(settings, "size", size),
            "interpolation": interpolation,
        }
    if not resizes:
        return {"image_size": _box(settings, "size", size), "resize": "none"}
    if processor.detects and size.keys() == {"shortest_edge", "longest_edge"}:
        return _within(size["shortest_edge"], size["longest_edge"], interpolation)
    return {"image_size": _box(settings, "size", size), "resize": "squash", "interpolation": interpolation}


def _within(shorter: int, longer: int, interpolation: Interpolation) -> Sizes:
    return {
        "image_size": (shorter, max(shorter, longer)),
        "resize": "within",
        "resize_size": shorter,
        "interpolation": interpolation,
    }


def _convnext_sizes(settings: ForeignSettings) -> Sizes:
    """ConvNeXt's `size` is that after the crop, which is left out from 384 pixels on."""
    interpolation = _interpolation(settings, _BICUBIC)
    sides = _size(settings, "size", {"shortest_edge": 384}, False)
    share = settings.number("crop_pct", 224 / 256)
    if sides.keys() != {"shortest_edge"}:
        raise settings.refuse("size", "its processor takes a shortest_edge only")
    if not 0.01 <= share <= 100:
        raise settings.refuse("crop_pct", "it must be a share of the image, such as 0.875")
    settings.expect(do_center_crop=False)
    settings.get("crop_size")
    side = sides["shortest_edge"]
    fields: Sizes = {"image_size": (side, side), "interpolation": interpolation}
    if not settings.boolean("do_resize", True):
        return {**fields, "resize": "none"}
    if side >= 384:
        return {**fields, "resize": "squash"}
    return {**fields, "resize_size": int(side / share)}


def _patch_sizes(settings: ForeignSettings) -> Sizes:
    """SigLIP 2's NaFlex images keep their proportions: as many whole patches as fit in their number."""
    interpolation = _interpolation(settings, _BILINEAR)
    patch, count = settings.integer("patch_size", 16, 1), settings.integer("max_num_patches", 256, 1)
    settings.expect(do_resize=True, do_center_crop=False)
    for key in ("size", "crop_size", "default_to_square"):
        settings.get(key)
    rows = math.isqrt(count)
    if rows * rows != count or rows * patch > LARGEST_SIDE:
        rule = f"it must be a square number, whose images have at most {LARGEST_SIDE} pixels in a side"
        raise settings.refuse("max_num_patches", rule)
    side = rows * patch
    return {"image_size": (side, side), "resize": "patches", "resize_size": patch, "interpolation": interpolation}


def _longest_sizes(settings: ForeignSettings, processor: _Processor) -> Sizes:
    """SAM's images are as large as fit into a square, which is filled up right and below when they are asked about."""
    interpolation = _interpolation(settings, processor.resample)
    sides = _size(settings, "size", processor.size, True)
    settings.expect(do_resize=True, do_center_crop=False, do_pad=True)
    if sides.keys() != {"longest_edge"}:
        raise settings.refuse("size", "SAM's images keep their proportions: it is {'longest_edge': pixels}")
    side = sides["longest_edge"]
    if _size(settings, "pad_size", {"height": 1024, "width": 1024}, True) != {"height": side, "width": side}:
        raise settings.refuse("pad_size", f"the square that images are put into has the {side} pixels of their size")
    for key in ("crop_size", "mask_size", "mask_pad_size"):  # of masks to train with
        settings.get(key)
    return {**_within(side, side, interpolation), "rounding": "sam"}
