"""Cards of HiViT and of its masked pre-training.

Its authors publish two files of HiViT-B, pre-trained and fine-tuned, on a file-sharing drive that offers no lasting
address: see the README of zhangxiaosong18/hivit. `HiViT.from_pretrained(path)` reads both once they are on disk, and
`HiViTMAE.from_pretrained(path)` the first, with its decoder.
"""

from nexus.core.card import ModelCard
from nexus.models.cv.hivit import VARIANTS, HiViT
from nexus.models.cv.hivit_mae import VARIANTS as MASKED_VARIANTS
from nexus.models.cv.hivit_mae import HiViTMAE
from nexus.models.registry import register

_NUM_PARAMETERS = {"hivit_tiny": 19_181_668, "hivit_small": 37_526_464, "hivit_base": 66_418_952}

_PAPER = "https://arxiv.org/abs/2205.14949"

register(
    *(
        ModelCard(
            name=name,
            model_class=HiViT,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            paper=_PAPER,
            good_for=("100k+",),
        )
        for name, config in VARIANTS.items()
    ),
    ModelCard(
        name="mae_hivit_base",
        model_class=HiViTMAE,
        config=MASKED_VARIANTS["mae_hivit_base"],
        num_parameters=87_041_152,  # with the decoder and its frozen position embedding
        paper=_PAPER,
    ),
)
