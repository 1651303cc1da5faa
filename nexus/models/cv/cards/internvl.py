"""Cards of InternVL 2.5, 3 and 3.5 whose language model is a Qwen2.5 or a Qwen3."""

from nexus.core.card import ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.internvl.internvl import VARIANTS, InternVL
from nexus.models.registry import register

TILES = Preprocessing(image_size=(448, 448), resize="squash", interpolation="bicubic")
LICENCE = "MIT or Apache-2.0 as the page of each tells, and that of its language model"
PAPERS = {
    "2_5": "https://arxiv.org/abs/2412.05271",
    "3": "https://arxiv.org/abs/2504.10479",
    "3_5": "https://arxiv.org/abs/2508.18265",
}
PARAMETERS = {
    "internvl2_5_1b": 938_193_024,
    "internvl2_5_4b": 3_712_637_952,
    "internvl3_1b": 938_193_024,
    "internvl3_2b": 2_088_957_440,
    "internvl3_8b": 7_944_373_760,
    "internvl3_14b": 15_117_256_704,
    "internvl3_5_1b": 1_060_897_792,
    "internvl3_5_2b": 2_348_347_392,
    "internvl3_5_4b": 4_732_489_216,
    "internvl3_5_8b": 8_528_318_464,
    "internvl3_5_14b": 15_119_523_840,
}


def internvl_card(name: str) -> ModelCard:
    """Returns the card of a variant: the authors' files, and for releases 3 and 3.5 those of transformers' layout."""
    release, _, size = name.removeprefix("internvl").rpartition("_")
    repository = f"hf-hub:OpenGVLab/InternVL{release}-{size.upper()}"
    places = {"authors": repository, **({} if release == "2_5" else {"hub": f"{repository}-hf"})}
    return ModelCard(
        name=name,
        model_class=InternVL,
        config=VARIANTS[name],
        num_parameters=PARAMETERS[name],
        weights=tuple(Weights(tag=tag, url=url, licence=LICENCE, preprocessing=TILES) for tag, url in places.items()),
        paper=PAPERS[release],
    )


register(*map(internvl_card, VARIANTS))
