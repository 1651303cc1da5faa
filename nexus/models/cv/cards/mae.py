"""Cards of the masked autoencoders. Their fine-tuned classifiers are tags of the Vision Transformers."""

from typing import Any

from nexus.core.card import ModelCard, Weights
from nexus.core.preprocessing import Preprocessing
from nexus.models.cv.mae import MAE, VARIANTS
from nexus.models.registry import register

_FILES = "https://dl.fbaipublicfiles.com/mae"
_NUM_PARAMETERS = {  # counted on the authors' model, with its decoder and the frozen position embeddings
    "mae_vit_base_patch16_224": 111_907_840,
    "mae_vit_large_patch16_224": 329_541_888,
    "mae_vit_huge_patch14_224": 657_074_508,
}


def _weights(tag: str, url: str, **changes: Any) -> Weights:
    return Weights(
        tag=tag,
        url=url,
        licence="cc-by-nc-4.0",
        preprocessing=Preprocessing(resize_size=256),
        changes=changes,
    )


def _published(size: str) -> list[Weights]:
    """With decoder from the hub; the authors' own files: the encoder alone, and large ones that paint plain pixels."""
    weights = [
        _weights("fb_in1k", f"hf-hub:facebook/vit-mae-{size}"),
        _weights("authors_encoder_in1k", f"{_FILES}/pretrain/mae_pretrain_vit_{size}.pth"),
    ]
    if size == "large":
        for tag, suffix in (("authors_pixels_in1k", ""), ("authors_pixels_gan_in1k", "_ganloss")):
            url = f"{_FILES}/visualize/mae_visualize_vit_{size}{suffix}.pth"
            weights.append(_weights(tag, url, norm_pix_loss=False))
    return weights


register(
    *(
        ModelCard(
            name=name,
            model_class=MAE,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            weights=tuple(_published(name.split("_")[2])),
            paper="https://arxiv.org/abs/2111.06377",
        )
        for name, config in VARIANTS.items()
    )
)
