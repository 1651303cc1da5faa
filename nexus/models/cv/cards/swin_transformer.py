"""Cards of the Swin Transformers."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.layers import image_sides
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import IMAGENET_TOP1, timm_weights, torchvision_weights
from nexus.models.cv.swin_transformer import VARIANTS, SwinTransformer
from nexus.models.registry import register

_STORAGE = "https://github.com/SwinTransformer/storage/releases/download"
_README = "README of microsoft/Swin-Transformer"
_IN22K = {"num_classes": 21841}

_NUM_PARAMETERS = {  # counted on the authors' model
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window7_224": 196_532_476,
    "swin_large_patch4_window12_384": 196_735_516,
}

# variant: tags on the hub with top-1 as timm measured it, the default first; None where there is no ImageNet-1k head
_TIMM: dict[str, dict[str, float | None]] = {
    "swin_tiny_patch4_window7_224": {"ms_in1k": 81.376, "ms_in22k_ft_in1k": 80.968, "ms_in22k": None},
    "swin_small_patch4_window7_224": {"ms_in1k": 83.208, "ms_in22k_ft_in1k": 83.298, "ms_in22k": None},
    "swin_base_patch4_window7_224": {"ms_in22k_ft_in1k": 85.272, "ms_in1k": 83.606, "ms_in22k": None},
    "swin_base_patch4_window12_384": {"ms_in22k_ft_in1k": 86.438, "ms_in1k": 84.476, "ms_in22k": None},
    "swin_large_patch4_window7_224": {"ms_in22k_ft_in1k": 86.312, "ms_in22k": None},
    "swin_large_patch4_window12_384": {"ms_in22k_ft_in1k": 87.132, "ms_in22k": None},
}

# The authors' top-1 of the same weights, from their own files.
_AUTHORS: dict[str, dict[str, float]] = {
    "swin_tiny_patch4_window7_224": {"in1k": 81.2, "in22k_ft_in1k": 80.9},
    "swin_small_patch4_window7_224": {"in1k": 83.2, "in22k_ft_in1k": 83.2},
    "swin_base_patch4_window7_224": {"in22k_ft_in1k": 85.2, "in1k": 83.5},
    "swin_base_patch4_window12_384": {"in22k_ft_in1k": 86.4, "in1k": 84.5},
    "swin_large_patch4_window7_224": {"in22k_ft_in1k": 86.3},
    "swin_large_patch4_window12_384": {"in22k_ft_in1k": 87.3},
}

_TORCHVISION = {
    "swin_tiny_patch4_window7_224": [
        torchvision_weights("tv_in1k", "swin_t-704ceda3.pth", top1=81.474, resize_size=232, interpolation="bicubic")
    ],
    "swin_small_patch4_window7_224": [
        torchvision_weights("tv_in1k", "swin_s-5e29d889.pth", top1=83.196, resize_size=246, interpolation="bicubic")
    ],
    "swin_base_patch4_window7_224": [
        torchvision_weights("tv_in1k", "swin_b-68c6b09e.pth", top1=83.582, resize_size=238, interpolation="bicubic")
    ],
}


def _from_timm(name: str, tag: str, top1: float | None) -> Weights:
    size = image_sides(VARIANTS[name].image_size)[0]
    return timm_weights(
        name,
        tag,
        image_size=size,
        crop=0.9 if size == 224 else 1.0,
        imagenet_mean=True,
        licence="mit",
        top1=top1,
        changes=_IN22K if top1 is None else {},
    )


def _from_authors(name: str, data: str, top1: float | None) -> Weights:
    """A file of the authors' releases; they evaluate at 256 pixels cropped to 224, or at 384 without a crop."""
    size = image_sides(VARIANTS[name].image_size)[0]
    later = data != "in1k" and name.startswith(("swin_tiny", "swin_small"))  # T and S on ImageNet-22k came in v1.0.8
    suffix = {"in1k": "", "in22k": "_22k", "in22k_ft_in1k": "_22kto1k_finetune" if later else "_22kto1k"}[data]
    return Weights(
        tag=f"authors_{data}",
        url=f"{_STORAGE}/{'v1.0.8' if later else 'v1.0.0'}/{name}{suffix}.pth",
        licence="mit",
        preprocessing=Preprocessing(image_size=(size, size), resize_size=256 if size == 224 else size),
        changes=_IN22K if top1 is None else {},
        metrics=() if top1 is None else (Metric(name=IMAGENET_TOP1, value=top1, source=_README),),
    )


register(
    *(
        ModelCard(
            name=name,
            model_class=SwinTransformer,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            weights=named(
                config,
                (
                    *(_from_timm(name, tag, top1) for tag, top1 in _TIMM[name].items()),
                    *(_from_authors(name, data, top1) for data, top1 in _AUTHORS[name].items()),
                    _from_authors(name, "in22k", None),
                    *_TORCHVISION.get(name, []),
                ),
            ),
            paper="https://arxiv.org/abs/2103.14030",
            good_for=(
                "classification",
                "1k-10k",
                "100k+",
                *(("high-accuracy",) if name.startswith("swin_large") else ()),
            ),
        )
        for name, config in VARIANTS.items()
    )
)
