"""Cards of DINOv2."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.dinov2 import VARIANTS, DINOv2
from nexus.models.registry import register

_README = "README of facebookresearch/dinov2"
_LINEAR, _KNN = "imagenet-1k linear-probe top-1", "imagenet-1k k-nn top-1"

# variant: parameters (with the mask token), linear probe and k-nn on frozen features as the authors measured them
_FACTS = {
    "dinov2_vits14": (22_056_576, 81.1, 79.0),
    "dinov2_vitb14": (86_580_480, 84.5, 82.1),
    "dinov2_vitl14": (304_368_640, 86.3, 83.5),
    "dinov2_vitg14": (1_136_480_768, 86.5, 83.5),
    "dinov2_vits14_reg": (22_058_112, 80.9, 79.1),
    "dinov2_vitb14_reg": (86_583_552, 84.6, 82.0),
    "dinov2_vitl14_reg": (304_372_736, 86.7, 83.8),
    "dinov2_vitg14_reg": (1_136_486_912, 87.1, 83.7),
}
_HUB_SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}


def _weights(name: str) -> tuple[Weights, ...]:
    size, registers = name.split("_")[1], name.endswith("_reg")
    _, linear, knn = _FACTS[name]
    probed = Metric(name=_LINEAR, value=linear, source=_README)
    at_224 = Preprocessing(resize_size=256)
    reg4 = "_reg4" if registers else ""
    return (
        Weights(
            tag="lvd142m",
            url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{size}/dinov2_{size}{reg4}_pretrain.pth",
            licence="apache-2.0",
            preprocessing=at_224,
            metrics=(probed, Metric(name=_KNN, value=knn, source=_README)),
        ),
        Weights(
            tag="lvd142m_linear_in1k",
            url=f"hf-hub:facebook/dinov2-{'with-registers-' * registers}{_HUB_SIZES[size]}-imagenet1k-1-layer",
            licence="apache-2.0",
            preprocessing=at_224,
            changes={"num_classes": 1000, "pool": "token+mean"},
            metrics=(probed,),
        ),
        Weights(
            tag="timm_lvd142m",
            url=f"hf-hub:timm/vit_{_HUB_SIZES[size]}_patch14{reg4}_dinov2.lvd142m",
            licence="apache-2.0",
            preprocessing=Preprocessing(image_size=(518, 518), resize_size=518),
        ),
    )


register(
    *(
        ModelCard(
            name=name,
            model_class=DINOv2,
            config=config,
            num_parameters=_FACTS[name][0],
            weights=named(config, _weights(name)),
            paper="https://arxiv.org/abs/2309.16588" if config.num_registers else "https://arxiv.org/abs/2304.07193",
            good_for=("classification", "zero-shot", "few-shot", "none", "10-100"),
        )
        for name, config in VARIANTS.items()
    )
)
