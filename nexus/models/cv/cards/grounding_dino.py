"""Cards of Grounding DINO."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.grounding_dino import VARIANTS, GroundingDINO
from nexus.models.registry import register

RELEASES = "https://github.com/IDEA-Research/GroundingDINO/releases/download"
PIXELS = Preprocessing(image_size=(800, 1333), resize="within", resize_size=800, interpolation="bilinear")


def grounding_dino_card(size: str, file: str, num_parameters: int, metric: str, average_precision: float) -> ModelCard:
    """Returns the card of a variant with the authors' file, and the same weights on the hub.

    Parameters are transformers' without the last norm of Swin, 1,536 and 2,048 of them, which nothing reads, and which
    is not in the authors' file.
    """
    source = "README of IDEA-Research/GroundingDINO"
    places = {"ogc": f"{RELEASES}/{file}", "ogc_hub": f"hf-hub:IDEA-Research/grounding-dino-{size}"}
    if size == "base":
        places = {tag.replace("ogc", "cogcoor"): url for tag, url in places.items()}
    return ModelCard(
        name=f"grounding_dino_{size}",
        model_class=GroundingDINO,
        config=VARIANTS[f"grounding_dino_{size}"],
        num_parameters=num_parameters,
        weights=tuple(
            Weights(
                tag=tag,
                url=url,
                licence="apache-2.0",
                preprocessing=PIXELS,
                metrics=(Metric(name=metric, value=average_precision, source=source),),
            )
            for tag, url in places.items()
        ),
        paper="https://arxiv.org/abs/2303.05499",
        good_for=("zero-shot:alternative", "detection:alternative"),
    )


register(
    grounding_dino_card(
        "tiny",
        "v0.1.0-alpha/groundingdino_swint_ogc.pth",
        172_249_090,
        "coco val2017 zero-shot box AP",
        48.4,
    ),
    grounding_dino_card(
        "base",
        "v0.1.0-alpha2/groundingdino_swinb_cogcoor.pth",
        232_313_216,
        "coco val2017 box AP (trained on it)",
        56.7,
    ),
)
