"""Cards of the ResNets."""

from typing import Any

from nexus.core.card import ModelCard, Weights
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import timm_weights, torchvision_weights
from nexus.models.cv.resnet import VARIANTS, ResNet
from nexus.models.registry import register

# How timm evaluates a tag; what is not named: 288 pixels, the whole of the shorter side, bicubic.
_EVALUATION: dict[str, dict[str, Any]] = {
    "a3_in1k": {"image_size": 224, "crop": 0.95},
    "ram_in1k": {"crop": 0.95},
    "ra_in1k": {"crop": 0.95},
    "bt_in1k": {"crop": 0.95},
    "ra4_e3600_r224_in1k": {"imagenet_mean": False},
    "am_in1k": {"image_size": 224, "crop": 0.875},
    "gluon_in1k": {"image_size": 224, "crop": 0.875},
    "fb_ssl_yfcc100m_ft_in1k": {
        "image_size": 224,
        "crop": 0.875,
        "interpolation": "bilinear",
        "licence": "cc-by-nc-4.0",
    },
    "fb_swsl_ig1b_ft_in1k": {
        "image_size": 224,
        "crop": 0.875,
        "interpolation": "bilinear",
        "licence": "cc-by-nc-4.0",
    },
}

# variant: tags on the hub with top-1 as timm measured it, the default first
_TIMM: dict[str, dict[str, float | None]] = {
    "resnet18": {
        "a1_in1k": 73.158,
        "a2_in1k": 72.372,
        "a3_in1k": 68.254,
        "fb_ssl_yfcc100m_ft_in1k": 72.594,
        "fb_swsl_ig1b_ft_in1k": 73.282,
        "gluon_in1k": 70.838,
    },
    "resnet34": {
        "a1_in1k": 77.918,
        "a2_in1k": 77.158,
        "a3_in1k": 72.97,
        "bt_in1k": 76.48,
        "ra4_e3600_r224_in1k": None,
        "gluon_in1k": 74.578,
    },
    "resnet50": {
        "a1_in1k": 81.214,
        "a1h_in1k": 80.676,
        "a2_in1k": 80.772,
        "a3_in1k": 78.048,
        "b1k_in1k": 80.706,
        "b2k_in1k": 80.454,
        "c1_in1k": 80.912,
        "c2_in1k": 80.87,
        "d_in1k": 80.972,
        "ram_in1k": 79.976,
        "am_in1k": 78.998,
        "ra_in1k": 79.836,
        "bt_in1k": 79.64,
        "fb_ssl_yfcc100m_ft_in1k": 79.234,
        "fb_swsl_ig1b_ft_in1k": 81.182,
        "gluon_in1k": 77.58,
    },
    "resnet101": {
        "a1h_in1k": 82.778,
        "a1_in1k": 82.322,
        "a2_in1k": 82.236,
        "a3_in1k": 79.814,
        "gluon_in1k": 79.31,
    },
    "resnet152": {
        "a1h_in1k": 83.45,
        "a1_in1k": 82.732,
        "a2_in1k": 82.608,
        "a3_in1k": 80.546,
        "gluon_in1k": 79.694,
    },
}

_TORCHVISION = {
    "resnet18": [torchvision_weights("tv_in1k", "resnet18-f37072fd.pth", top1=69.758)],
    "resnet34": [torchvision_weights("tv_in1k", "resnet34-b627a593.pth", top1=73.314)],
    "resnet50": [
        torchvision_weights("tv_in1k", "resnet50-0676ba61.pth", top1=76.13),
        torchvision_weights("tv2_in1k", "resnet50-11ad3fa6.pth", top1=80.858, resize_size=232),
    ],
    "resnet101": [
        torchvision_weights("tv_in1k", "resnet101-63fe2227.pth", top1=77.374),
        torchvision_weights("tv2_in1k", "resnet101-cd907fc2.pth", top1=81.886, resize_size=232),
    ],
    "resnet152": [
        torchvision_weights("tv_in1k", "resnet152-394f9c45.pth", top1=78.312),
        torchvision_weights("tv2_in1k", "resnet152-f82ba261.pth", top1=82.284, resize_size=232),
    ],
}

_NUM_PARAMETERS = {  # torchvision's metadata
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def _from_timm(name: str, tag: str, top1: float | None) -> Weights:
    evaluation: dict[str, Any] = {"image_size": 288, "crop": 1.0, "imagenet_mean": True, **_EVALUATION.get(tag, {})}
    if (name, tag) == ("resnet50", "a1h_in1k"):
        evaluation["image_size"] = 224  # trained at 176 pixels, where the others were trained at 224
    return timm_weights(name, tag, top1=top1, **evaluation)


register(
    *(
        ModelCard(
            name=name,
            model_class=ResNet,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            weights=named(
                config, (*(_from_timm(name, tag, top1) for tag, top1 in _TIMM[name].items()), *_TORCHVISION[name])
            ),
            paper="https://arxiv.org/abs/1512.03385",
            good_for=("classification:alternative", "100k+"),
        )
        for name, config in VARIANTS.items()
    )
)
