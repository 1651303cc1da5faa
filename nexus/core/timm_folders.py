"""config.json of timm: its variant, arguments and preprocessing are followed; what is not followed is refused."""

from collections.abc import Mapping
from typing import Any

from nexus.core.config import Config, field_types
from nexus.core.documents import FileError
from nexus.core.foreign import ForeignSettings
from nexus.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

_TOP = frozenset(
    [
        "architecture",
        "num_features",
        "global_pool",
        "label_names",
        "label_descriptions",
        "license",
        "library_name",
        "tags",
        "pretrained_cfg",
        "model_args",
        "num_classes",
    ]
)
"""Keys beside `pretrained_cfg`; timm itself takes the pooling from the arguments."""
_NO_PIXELS = frozenset(
    [
        "url",
        "file",
        "hf_hub_id",
        "hf_hub_filename",
        "tag",
        "source",
        "architecture",
        "custom_load",
        "license",
        "origin_url",
        "paper_ids",
        "paper_name",
        "notes",
        "label_names",
        "label_descriptions",
        "first_conv",
        "classifier",
        "pool_size",
        "min_input_size",
        "title",
        "state_dict",
        "tags",
    ]
)
"""Keys of `pretrained_cfg` that say where weights come from and what their layers are called."""
_TRAINING = [
    "drop_rate",
    "drop_path_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "drop_block_rate",
    "weight_init",
    "dynamic_img_size",
    "strict_img_size",
    "pretrained_strict",
    "bn_momentum",
]
"""Arguments that act in training, or say which sizes are taken."""
_ARGUMENTS = {
    "img_size": "image_size",
    "in_chans": "in_channels",
    "num_classes": "num_classes",
    "depth": "num_layers",
    "depths": "num_layers",
    "num_blocks": "num_layers",
    **{name: name for name in ("patch_size", "embed_dim", "num_heads", "mlp_ratio", "qkv_bias", "window_size")},
}
"""What timm calls fields of our configurations that mean the same; each is followed where a configuration has it."""
_POOLS = {"token": "token", "avg": "mean"}


def config_from_timm(values: Mapping[str, Any], config: Config, where: str) -> tuple[Config, tuple[str, ...]]:
    """Returns the configuration that a config.json of timm describes, and the names of its classes.

    Args:
        values: Its content.
        config: Of the variant that it names.
        where: Its path, for messages.

    Raises:
        FileError: Something in it is not followed.
    """
    settings, fields = ForeignSettings(values, where), field_types(type(config))
    pretrained = settings.section("pretrained_cfg") if values.get("pretrained_cfg") else settings
    arguments = settings.section("model_args")
    channels, *sides = pretrained.integers("input_size", (3, 224, 224), 1)
    changes: dict[str, Any] = {"in_channels": channels} if "in_channels" in fields else {}
    if pretrained.boolean("fixed_input_size", False) and "image_size" in fields:
        changes["image_size"] = sides[0] if len(set(sides)) == 1 else tuple(sides)
    num_classes = settings.get("num_classes", pretrained.get("num_classes"))
    if num_classes is not None:
        changes["num_classes"] = num_classes
    for theirs, ours in _ARGUMENTS.items():
        value = arguments.get(theirs) if ours in fields else None
        if value is not None:
            changes[ours] = tuple(value) if isinstance(value, list) else value
    for key in _TRAINING:
        arguments.get(key)
    for pool in (pretrained.get("global_pool"), arguments.get("global_pool")):
        if pool is not None:
            changes |= _pooling(pool, fields, where)
    names = settings.get("label_names", pretrained.get("label_names", ()))
    if isinstance(names, Mapping):
        names = tuple(names.values())
    if not isinstance(names, list | tuple):
        raise settings.refuse("label_names", "it must list names")
    _preprocessing(pretrained, where)
    arguments.finish(frozenset())
    settings.finish(_TOP | _NO_PIXELS)
    try:
        return config.replace(**changes), tuple(str(name) for name in names)
    except ValueError as error:
        raise FileError(f"{where}: {error}") from None


def _pooling(pool: Any, fields: Mapping[str, Any], where: str) -> dict[str, str]:
    if "pool" in fields and pool in _POOLS:
        return {"pool": _POOLS[pool]}
    if "pool" not in fields and pool in ("avg", "fast"):
        return {}
    raise FileError(f"{where} has global_pool {repr(pool)[:60]}; models here pool by {', '.join(map(repr, _POOLS))}.")


def preprocessing_from_timm(values: Mapping[str, Any], where: str) -> Preprocessing:
    """Returns the preprocessing in a config.json of timm."""
    return _preprocessing(ForeignSettings(values.get("pretrained_cfg") or values, where), where)


def _preprocessing(settings: ForeignSettings, where: str) -> Preprocessing:
    size = settings.integers("input_size", (3, 224, 224), 1)
    size = settings.integers("test_input_size", size, 1)
    crop = settings.number("test_crop_pct", settings.number("crop_pct", 0.875))
    if len(size) != 3 or max(size) > 1 << 14 or not 0.05 <= crop <= 20:
        raise FileError(f"{where}: input_size is {list(size)} and crop_pct {crop}; no image comes to such a size.")
    mode, interpolation = settings.text("crop_mode", "center"), settings.text("interpolation", "bicubic")
    if mode not in ("center", "squash") or interpolation not in (
        "nearest",
        "bilinear",
        "bicubic",
        "lanczos",
        "box",
        "hamming",
    ):
        raise FileError(
            f"{where}: crop_mode is {mode!r:.40} and interpolation {interpolation!r:.40}; they are not known here."
        )
    _, height, width = size
    before: int | tuple[int, int] | None = int(min(height, width) / crop)
    if mode == "squash":
        before = None if crop == 1 else (int(height / crop), int(width / crop))
    return Preprocessing(
        image_size=(height, width),
        resize="squash" if mode == "squash" else "shorter",
        resize_size=before,
        interpolation=interpolation,  # pyrefly: ignore[bad-argument-type]
        mean=settings.numbers("mean", IMAGENET_MEAN),
        std=settings.numbers("std", IMAGENET_STD),
    )
