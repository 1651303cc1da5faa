"""The card of MedSAM.

The authors' file, `medsam_vit_b.pth`, lies in a folder that browsers open. The copy on the hub is of April 2023;
whether it holds the weights of the paper is not known here.
"""

from nexus.core.card import BY_HAND, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.medsam import VARIANTS, MedSAM
from nexus.models.registry import register

PIXELS = Preprocessing(
    image_size=(1024, 1024),
    resize="squash",
    interpolation="spline",
    levels="image",
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)
PLACES = {
    "wanglab_hub": "hf-hub:wanglab/medsam-vit-base",
    "authors": f"{BY_HAND}https://drive.google.com/drive/folders/1ETWmi4AiniJeWOt6HAsYgTjYv_fkgzoN/medsam_vit_b.pth",
}

register(
    ModelCard(
        name="medsam_vit_base",
        model_class=MedSAM,
        config=VARIANTS["medsam_vit_base"],
        num_parameters=93_735_472,
        weights=tuple(
            Weights(tag=tag, url=url, licence="apache-2.0", preprocessing=PIXELS) for tag, url in PLACES.items()
        ),
        paper="https://arxiv.org/abs/2304.12306",
        good_for=("interactive:alternative",),
    )
)
