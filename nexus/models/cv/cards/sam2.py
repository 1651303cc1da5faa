"""Cards of SAM 2 and 2.1."""

from nexus.core.card import ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.sam2 import SAM2, VARIANTS
from nexus.models.registry import register

PIXELS = Preprocessing(image_size=(1024, 1024), resize="squash", interpolation="bilinear")
PLACE = "https://dl.fbaipublicfiles.com/segment_anything_2"


def sam2_card(version: str, size: str, num_parameters: int) -> ModelCard:
    """Returns the card of a variant with the authors' file, and the same weights on the hub."""
    name = f"sam{version}_hiera_{size}"
    folder = {"2": "072824", "2.1": "092824"}[version]
    places = {
        "sav": f"{PLACE}/{folder}/{name}.pt",
        "sav_hub": f"hf-hub:facebook/sam{version}-hiera-{size.replace('_', '-')}",
    }
    return ModelCard(
        name=name,
        model_class=SAM2,
        config=VARIANTS[name],
        num_parameters=num_parameters,
        weights=tuple(
            Weights(tag=tag, url=url, licence="apache-2.0", preprocessing=PIXELS) for tag, url in places.items()
        ),
        paper="https://arxiv.org/abs/2408.00714",
        good_for=("interactive", "zero-shot:alternative"),
    )


_OF_2_1 = 16_512
"""Parameters that 2.1 has and 2 has not: times of pointers, and the memory of frames without the object."""

for _size, _count in (("tiny", 38_962_498), ("small", 46_060_354), ("base_plus", 80_850_178), ("large", 224_446_642)):
    register(sam2_card("2.1", _size, _count), sam2_card("2", _size, _count - _OF_2_1))
