"""Cards of HiViT.

Its authors publish two files of HiViT-B, pre-trained and fine-tuned, on a file-sharing drive that offers no lasting
address: see the README of zhangxiaosong18/hivit. `HiViT.from_pretrained(path)` reads both once they are on disk.
"""

from nexus.core.registry import ModelCard, register
from nexus.models.cv.hivit import VARIANTS, HiViT

_NUM_PARAMETERS = {"hivit_tiny": 19_181_668, "hivit_small": 37_526_464, "hivit_base": 66_418_952}

register(
    *(
        ModelCard(
            name=name,
            model_class=HiViT,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            paper="https://arxiv.org/abs/2205.14949",
            good_for=("100k+",),
        )
        for name, config in VARIANTS.items()
    )
)
