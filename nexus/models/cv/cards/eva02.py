"""Cards of EVA-02."""

from collections.abc import Mapping
from typing import Any, Literal

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import IMAGENET_TOP1
from nexus.models.cv.eva02 import EVA02, VARIANTS
from nexus.models.registry import register

_README = "README of EVA-02 in baaivision/EVA"
_IN22K = {"num_classes": 21841}

_NUM_PARAMETERS = {
    "eva02_tiny_patch14_224": 5_502_144,
    "eva02_small_patch14_224": 21_621_120,
    "eva02_base_patch14_224": 85_758_720,
    "eva02_large_patch14_224": 303_268_800,
    "eva02_tiny_patch14_336": 5_756_584,
    "eva02_small_patch14_336": 22_129_000,
    "eva02_base_patch14_448": 87_117_544,
    "eva02_large_patch14_448": 305_080_232,
}

# variant: tags with the crop's share of the image ("squash" keeps no aspect), top-1 in the authors' README if it is a
# classifier of ImageNet-1k, and what else is different; the first is the default
_TIMM: dict[str, dict[str, tuple[float | Literal["squash"], float | None, Mapping[str, Any]]]] = {
    "eva02_tiny_patch14_224": {"mim_in22k": (0.9, None, {})},
    "eva02_small_patch14_224": {"mim_in22k": (0.9, None, {})},
    "eva02_base_patch14_224": {"mim_in22k": (0.9, None, {})},
    "eva02_large_patch14_224": {"mim_in22k": (0.9, None, {}), "mim_m38m": (0.9, None, {})},
    "eva02_tiny_patch14_336": {"mim_in22k_ft_in1k": (1.0, 80.7, {})},
    "eva02_small_patch14_336": {"mim_in22k_ft_in1k": (1.0, 85.8, {})},
    "eva02_base_patch14_448": {
        "mim_in22k_ft_in22k_in1k": ("squash", 88.6, {}),
        "mim_in22k_ft_in1k": (1.0, 88.3, {}),
        "mim_in22k_ft_in22k": ("squash", None, _IN22K),
    },
    "eva02_large_patch14_448": {
        "mim_m38m_ft_in22k_in1k": ("squash", 90.0, {}),
        "mim_in22k_ft_in22k_in1k": ("squash", 89.9, {}),
        "mim_in22k_ft_in1k": (1.0, 89.6, {}),
        "mim_m38m_ft_in1k": (1.0, None, {}),
        "mim_in22k_ft_in22k": ("squash", None, _IN22K),
        "mim_m38m_ft_in22k": ("squash", None, _IN22K),
    },
}

# variant: the authors' own files, by tag
_AUTHORS = {
    "eva02_tiny_patch14_224": {"pt_in21k": "pt/eva02_Ti_pt_in21k_p14.pt"},
    "eva02_small_patch14_224": {"pt_in21k": "pt/eva02_S_pt_in21k_p14.pt"},
    "eva02_base_patch14_224": {"pt_in21k": "pt/eva02_B_pt_in21k_p14.pt"},
    "eva02_large_patch14_224": {"pt_in21k": "pt/eva02_L_pt_in21k_p14.pt", "pt_m38m": "pt/eva02_L_pt_m38m_p14.pt"},
    "eva02_tiny_patch14_336": {"pt_in21k_ft_in1k": "cls/in1k/eva02_Ti_pt_in21k_ft_in1k_p14.pt"},
    "eva02_small_patch14_336": {"pt_in21k_ft_in1k": "cls/in1k/eva02_S_pt_in21k_ft_in1k_p14.pt"},
    "eva02_base_patch14_448": {"pt_in21k_ft_in1k": "cls/in1k/eva02_B_pt_in21k_ft_in1k_p14.pt"},
    "eva02_large_patch14_448": {"pt_in21k_ft_in1k": "cls/in1k/eva02_L_pt_in21k_ft_in1k_p14.pt"},
}


def _preprocessing(size: int, crop: float | Literal["squash"]) -> Preprocessing:
    squash = crop == "squash"
    return Preprocessing(
        image_size=(size, size),
        resize="squash" if squash else "shorter",
        resize_size=None if squash else int(size / crop),
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


def _weights(name: str, size: int) -> tuple[Weights, ...]:
    from_timm = (
        Weights(
            tag=tag,
            url=f"hf-hub:timm/{name}.{tag}",
            licence="mit",
            preprocessing=_preprocessing(size, crop),
            changes=changes,
            metrics=() if top1 is None else (Metric(name=IMAGENET_TOP1, value=top1, source=_README),),
        )
        for tag, (crop, top1, changes) in _TIMM[name].items()
    )
    from_authors = (
        Weights(
            tag=tag,
            url=f"hf-hub:Yuxin-CV/EVA-02#eva02/{file}",
            licence="mit",
            preprocessing=_preprocessing(size, 1.0),
        )
        for tag, file in _AUTHORS[name].items()
    )
    return (*from_timm, *from_authors)


register(
    *(
        ModelCard(
            name=name,
            model_class=EVA02,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            weights=named(config, _weights(name, int(name.rpartition("_")[2]))),
            paper="https://arxiv.org/abs/2303.11331",
            good_for=("classification:alternative", "1k-10k:alternative", "100k+"),
        )
        for name, config in VARIANTS.items()
    )
)
