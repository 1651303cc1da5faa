"""Cards of the MLP-Mixers."""

from dataclasses import replace

from nexus.core.card import ModelCard, Weights
from nexus.core.preprocessing import HALF, Preprocessing
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import timm_weights
from nexus.models.cv.mlp_mixer import VARIANTS, MLPMixer
from nexus.models.registry import register

_NUM_PARAMETERS = {  # counted on timm's models
    "mixer_s32_224": 19_104_624,
    "mixer_s16_224": 18_528_264,
    "mixer_b32_224": 60_293_428,
    "mixer_b16_224": 59_880_472,
    "mixer_l32_224": 206_939_264,
    "mixer_l16_224": 208_196_168,
}

# variant: tags on the hub with top-1 as timm measured it, the default first; None where there is no ImageNet-1k head
_TIMM: dict[str, dict[str, float | None]] = {
    "mixer_b16_224": {
        "goog_in21k_ft_in1k": 76.602,
        "goog_in21k": None,
        "miil_in21k_ft_in1k": 82.306,
        "miil_in21k": None,
    },
    "mixer_l16_224": {"goog_in21k_ft_in1k": 72.054, "goog_in21k": None},
}
_NUM_CLASSES = {"goog_in21k": 21843, "miil_in21k": 11221}

_JAX = {"mixer_b16_224": "Mixer-B_16.npz", "mixer_l16_224": "Mixer-L_16.npz"}


def _from_timm(name: str, tag: str, top1: float | None) -> Weights:
    changes = {"num_classes": _NUM_CLASSES[tag]} if tag in _NUM_CLASSES else {}
    weights = timm_weights(name, tag, crop=0.875, top1=top1, changes=changes)
    if not tag.startswith("miil"):
        return weights
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"}
    return replace(weights, preprocessing=weights.preprocessing.replace(**plain))


def _from_jax(name: str) -> list[Weights]:
    """The authors' own arrays, whose GELU is the tanh form."""
    return [
        Weights(
            tag=f"jax_{data}",
            url=f"https://storage.googleapis.com/mixer_models/{folder}/{_JAX[name]}",
            licence="apache-2.0",
            preprocessing=Preprocessing(resize_size=256, mean=HALF, std=HALF),
            changes={"activation": "gelu_tanh", "num_classes": num_classes},
        )
        for data, folder, num_classes in (("in1k", "imagenet1k", 1000), ("in21k", "imagenet21k", 21843))
        if name in _JAX
    ]


register(
    *(
        ModelCard(
            name=name,
            model_class=MLPMixer,
            config=config,
            num_parameters=_NUM_PARAMETERS[name],
            weights=named(
                config, (*(_from_timm(name, tag, top1) for tag, top1 in _TIMM.get(name, {}).items()), *_from_jax(name))
            ),
            paper="https://arxiv.org/abs/2105.01601",
            good_for=("100k+",),
        )
        for name, config in VARIANTS.items()
    )
)
