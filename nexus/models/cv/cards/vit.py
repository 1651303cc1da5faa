"""Cards of the Vision Transformers."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.layers import image_sides
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import IMAGENET_TOP1, timm_weights, torchvision_weights
from nexus.models.cv.vit import VARIANTS, VisionTransformer
from nexus.models.registry import register

_NONCOMMERCIAL = "cc-by-nc-4.0"
_IN21K = {"num_classes": 21843}
_HEADLESS = {"num_classes": 0}

# variant: tags on the hub with top-1 as timm measured it, the default first; None where there is no ImageNet-1k head
_TIMM: dict[str, dict[str, float | None]] = {
    "vit_tiny_patch16_224": {"augreg_in21k_ft_in1k": 75.454, "augreg_in21k": None},
    "vit_tiny_patch16_384": {"augreg_in21k_ft_in1k": 78.424},
    "vit_small_patch8_224": {"dino": None},
    "vit_small_patch16_224": {
        "augreg_in21k_ft_in1k": 81.384,
        "augreg_in1k": 78.846,
        "augreg_in21k": None,
        "dino": None,
    },
    "vit_small_patch16_384": {"augreg_in21k_ft_in1k": 83.802, "augreg_in1k": 81.116},
    "vit_small_patch32_224": {"augreg_in21k_ft_in1k": 75.994, "augreg_in21k": None},
    "vit_small_patch32_384": {"augreg_in21k_ft_in1k": 80.486},
    "vit_base_patch8_224": {
        "augreg2_in21k_ft_in1k": 86.218,
        "augreg_in21k_ft_in1k": 85.798,
        "augreg_in21k": None,
        "dino": None,
    },
    "vit_base_patch16_224": {
        "augreg2_in21k_ft_in1k": 85.096,
        "augreg_in21k_ft_in1k": 84.532,
        "orig_in21k_ft_in1k": 81.786,
        "augreg_in1k": 79.154,
        "sam_in1k": 80.244,
        "augreg_in21k": None,
        "orig_in21k": None,
        "dino": None,
        "mae": None,
    },
    "vit_base_patch16_384": {
        "augreg_in21k_ft_in1k": 85.996,
        "orig_in21k_ft_in1k": 84.2,
        "augreg_in1k": 81.102,
    },
    "vit_base_patch32_224": {
        "augreg_in21k_ft_in1k": 80.716,
        "augreg_in1k": 74.894,
        "sam_in1k": 73.694,
        "augreg_in21k": None,
        "orig_in21k": None,
    },
    "vit_base_patch32_384": {"augreg_in21k_ft_in1k": 83.35, "augreg_in1k": 78.752},
    "vit_large_patch16_224": {
        "augreg_in21k_ft_in1k": 85.834,
        "augreg_in21k": None,
        "orig_in21k": None,
        "mae": None,
    },
    "vit_large_patch16_384": {"augreg_in21k_ft_in1k": 87.084},
    "vit_large_patch32_224": {"orig_in21k": None},
    "vit_large_patch32_384": {"orig_in21k_ft_in1k": 81.51},
    "vit_huge_patch14_224": {"orig_in21k": None, "mae": None},
}


def _swag(tag: str, file: str, top1: float, image_size: int) -> Weights:
    return torchvision_weights(
        tag,
        file,
        top1=top1,
        image_size=image_size,
        resize_size=image_size,
        interpolation="bicubic",
        licence=_NONCOMMERCIAL,
    )


# tv: trained on ImageNet-1k alone; tv_swag: weakly supervised, then all of it fine-tuned (ft) or the head alone (lc)
_TORCHVISION = {
    "vit_base_patch16_224": [
        torchvision_weights("tv_in1k", "vit_b_16-c867db91.pth", top1=81.072),
        _swag("tv_swag_lc_in1k", "vit_b_16_lc_swag-4e70ced5.pth", 81.886, 224),
    ],
    "vit_base_patch16_384": [_swag("tv_swag_ft_in1k", "vit_b_16_swag-9ac1b537.pth", 85.304, 384)],
    "vit_base_patch32_224": [torchvision_weights("tv_in1k", "vit_b_32-d86f8d99.pth", top1=75.912)],
    "vit_large_patch16_224": [
        torchvision_weights("tv_in1k", "vit_l_16-852ce7e3.pth", top1=79.662, resize_size=242),
        _swag("tv_swag_lc_in1k", "vit_l_16_lc_swag-4d563306.pth", 85.146, 224),
    ],
    "vit_large_patch16_512": [_swag("tv_swag_ft_in1k", "vit_l_16_swag-4f3808c9.pth", 88.064, 512)],
    "vit_large_patch32_224": [torchvision_weights("tv_in1k", "vit_l_32-c7638314.pth", top1=76.972)],
    "vit_huge_patch14_224": [_swag("tv_swag_lc_in1k", "vit_h_14_lc_swag-c1eb923e.pth", 85.708, 224)],
    "vit_huge_patch14_518": [_swag("tv_swag_ft_in1k", "vit_h_14_swag-80465313.pth", 88.552, 518)],
}

_NUM_PARAMETERS = {  # torchvision's metadata where it has the variant, else counted on timm's model with 1000 classes
    "vit_tiny_patch16_224": 5_717_416,
    "vit_tiny_patch16_384": 5_790_376,
    "vit_small_patch8_224": 22_055_272,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch16_384": 22_196_584,
    "vit_small_patch32_224": 22_878_952,
    "vit_small_patch32_384": 22_915_432,
    "vit_base_patch8_224": 86_576_872,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch32_384": 88_297_192,
    "vit_large_patch14_224": 304_203_752,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch16_384": 304_715_752,
    "vit_large_patch16_512": 305_174_504,
    "vit_large_patch32_224": 306_535_400,
    "vit_large_patch32_384": 306_632_680,
    "vit_huge_patch14_224": 632_045_800,
    "vit_huge_patch14_518": 633_470_440,
}


def _from_timm(name: str, tag: str, top1: float | None) -> Weights:
    size = image_sides(VARIANTS[name].image_size)[0]
    body = _IN21K if tag == "augreg_in21k" else _HEADLESS
    return timm_weights(
        name,
        tag,
        image_size=size,
        crop=0.9 if size == 224 else 1.0,
        imagenet_mean=tag in ("dino", "mae"),
        licence=_NONCOMMERCIAL if tag == "mae" else "apache-2.0",
        top1=top1,
        changes=body if top1 is None else {},
    )


# Fine-tuned from MAE by its authors: file, top-1.
_MAE = {
    "vit_base_patch16_224": ("mae_finetuned_vit_base.pth", 83.664),
    "vit_large_patch16_224": ("mae_finetuned_vit_large.pth", 85.952),
    "vit_huge_patch14_224": ("mae_finetuned_vit_huge.pth", 86.928),
}


def _from_mae(file: str, top1: float) -> Weights:
    return Weights(
        tag="mae_ft_in1k",
        url=f"https://dl.fbaipublicfiles.com/mae/finetune/{file}",
        licence=_NONCOMMERCIAL,
        preprocessing=Preprocessing(resize_size=256),
        changes={"pool": "mean"},
        metrics=(Metric(name=IMAGENET_TOP1, value=top1, source="FINETUNE.md of facebookresearch/mae"),),
    )


register(
    *(
        ModelCard(
            name=name,
            model_class=VisionTransformer,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            weights=named(
                config,
                (
                    *(_from_timm(name, tag, top1) for tag, top1 in _TIMM.get(name, {}).items()),
                    *_TORCHVISION.get(name, []),
                    *([_from_mae(*_MAE[name])] if name in _MAE else []),
                ),
            ),
            paper="https://arxiv.org/abs/2010.11929",
            good_for=("classification", "1k-10k", "100k+"),
        )
        for name, config in VARIANTS.items()
    )
)
