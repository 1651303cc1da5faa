"""Cards of SigLIP and SigLIP 2."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import HALF, Preprocessing
from nexus.models.cv.siglip import VARIANTS, SigLIP
from nexus.models.registry import register

_ZERO_SHOT = "imagenet-1k zero-shot top-1"
_README = "README of SigLIP 2 in google-research/big_vision"

# variant: parameters, and zero-shot accuracy where the authors' table has one
_FACTS: dict[str, tuple[int, float | None]] = {
    "siglip_base_patch16_224": (203_155_970, None),
    "siglip_base_patch16_256": (203_202_050, None),
    "siglip_base_patch16_384": (203_447_810, None),
    "siglip_base_patch16_512": (203_791_874, None),
    "siglip_large_patch16_256": (652_150_786, None),
    "siglip_large_patch16_384": (652_478_466, None),
    "siglip_so400m_patch14_224": (877_360_306, None),
    "siglip_so400m_patch14_384": (877_960_498, None),
    "siglip_base_patch16_256_multilingual": (370_626_050, None),
    "siglip2_base_patch32_256": (376_856_066, 74.0),
    "siglip2_base_patch16_224": (375_187_970, 78.2),
    "siglip2_base_patch16_256": (375_234_050, 79.1),
    "siglip2_base_patch16_384": (375_479_810, 80.6),
    "siglip2_base_patch16_512": (375_823_874, 81.2),
    "siglip2_large_patch16_256": (881_526_786, 82.5),
    "siglip2_large_patch16_384": (881_854_466, 83.1),
    "siglip2_large_patch16_512": (882_313_218, 83.5),
    "siglip2_so400m_patch14_224": (1_135_463_602, 83.2),
    "siglip2_so400m_patch14_384": (1_136_008_498, 84.1),
    "siglip2_so400m_patch16_256": (1_135_670_962, 83.4),
    "siglip2_so400m_patch16_384": (1_136_039_602, 84.1),
    "siglip2_so400m_patch16_512": (1_136_555_698, 84.3),
    "siglip2_giant_opt_patch16_256": (1_871_393_906, 84.5),
    "siglip2_giant_opt_patch16_384": (1_871_885_426, 85.0),
    "siglip2_base_patch16_naflex": (375_234_050, 78.5),
    "siglip2_so400m_patch16_naflex": (1_135_670_962, 83.5),
}


def _weights(name: str) -> Weights:
    size, top1 = VARIANTS[name].image_size, _FACTS[name][1]
    repo = name.replace("_", "-")
    return Weights(
        tag="webli",
        url=f"hf-hub:google/{repo}",
        licence="apache-2.0",
        preprocessing=Preprocessing(
            image_size=(size, size),
            resize="patches" if name.endswith("naflex") else "squash",
            resize_size=VARIANTS[name].patch_size if name.endswith("naflex") else None,
            interpolation="bilinear" if name.startswith("siglip2") else "bicubic",
            mean=HALF,
            std=HALF,
        ),
        metrics=() if top1 is None else (Metric(name=_ZERO_SHOT, value=top1, source=_README),),
    )


register(
    *(
        ModelCard(
            name=name,
            model_class=SigLIP,
            config=config,
            num_parameters=_FACTS[name][0],
            weights=(_weights(name),),
            paper=f"https://arxiv.org/abs/{'2502.14786' if name.startswith('siglip2') else '2303.15343'}",
            good_for=("zero-shot:alternative", "none:alternative"),
        )
        for name, config in VARIANTS.items()
    )
)
