"""Cards of SAM."""

from nexus.core.card import ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.sam import SAM, VARIANTS
from nexus.models.registry import register

PIXELS = Preprocessing(
    image_size=(1024, 1024), resize="within", resize_size=1024, interpolation="bilinear", rounding="sam"
)


def sam_card(size: str, file: str, num_parameters: int) -> ModelCard:
    """Returns the card of a variant with the authors' file, and the same weights on the hub."""
    places = {
        "sa1b": f"https://dl.fbaipublicfiles.com/segment_anything/{file}",
        "sa1b_hub": f"hf-hub:facebook/sam-vit-{size}",
    }
    return ModelCard(
        name=f"sam_vit_{size}",
        model_class=SAM,
        config=VARIANTS[f"sam_vit_{size}"],
        num_parameters=num_parameters,
        weights=tuple(
            Weights(tag=tag, url=url, licence="apache-2.0", preprocessing=PIXELS) for tag, url in places.items()
        ),
        paper="https://arxiv.org/abs/2304.02643",
        good_for=("interactive", "zero-shot:alternative"),
    )


register(
    sam_card("base", "sam_vit_b_01ec64.pth", 93_735_472),
    sam_card("large", "sam_vit_l_0b3195.pth", 312_342_832),
    sam_card("huge", "sam_vit_h_4b8939.pth", 641_090_608),
)
