"""References of the convolutional networks, and of Swin, which has stages like them."""

from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nexus.models.cv.efficient_net import EfficientNetConfig
from nexus.models.cv.resnet import ResNetConfig
from nexus.models.cv.swin_transformer import SwinConfig
from nexus.models.cv.vgg import VGGConfig
from nexus.proofs.family import Family, Oracle


def timm_resnet(timm: ModuleType, config: ResNetConfig) -> nn.Module:
    """Returns timm's model of a configuration; its stem has 64 channels whatever it is told, so it is replaced."""
    kinds = {"basic": timm.models.resnet.BasicBlock, "bottleneck": timm.models.resnet.Bottleneck}
    width = config.hidden_dim
    channels = tuple(width * 2**stage for stage in range(4))
    theirs = timm.models.ResNet(
        kinds[config.block], config.num_layers, num_classes=config.num_classes, channels=channels
    )
    theirs.conv1, theirs.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
    first = theirs.layer1[0]
    first.conv1 = nn.Conv2d(width, width, first.conv1.kernel_size, padding=first.conv1.padding, bias=False)
    if config.block == "bottleneck":
        first.downsample[0] = nn.Conv2d(width, 4 * width, 1, bias=False)
    else:
        first.downsample = None
    return theirs


def hub_resnet(transformers: ModuleType, config: ResNetConfig) -> nn.Module:
    """Returns the model of transformers of a configuration."""
    expansion = 4 if config.block == "bottleneck" else 1
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=config.hidden_dim,
            hidden_sizes=[config.hidden_dim * expansion * 2**stage for stage in range(4)],
            depths=list(config.num_layers),
            layer_type=config.block,
            num_labels=config.num_classes,
        )
    )


def _vgg_layout(config: VGGConfig) -> list[int | str]:
    """Returns the list of widths and poolings by which torchvision and timm describe a VGG."""
    widths = [config.hidden_dim * min(2**stage, 8) for stage in range(5)]
    return [part for width, count in zip(widths, config.num_layers) for part in (*[width] * count, "M")]


def torchvision_vgg(torchvision: ModuleType, config: VGGConfig) -> nn.Module:
    """Returns torchvision's model of a configuration."""
    with torch.device("meta"):  # their own fully connected layers are large, and go
        theirs = torchvision.models.VGG(nn.Identity(), num_classes=config.num_classes, init_weights=False)
    theirs.features = torchvision.models.vgg.make_layers(_vgg_layout(config), batch_norm=config.batch_norm)
    theirs.classifier[0] = nn.Linear(8 * config.hidden_dim * 49, config.embed_dim)
    theirs.classifier[3] = nn.Linear(config.embed_dim, config.embed_dim)
    theirs.classifier[6] = nn.Linear(config.embed_dim, config.num_classes)
    return theirs


def timm_vgg(timm: ModuleType, config: VGGConfig) -> nn.Module:
    """Returns timm's model of a configuration; it slides its fully connected layers over larger maps."""
    with torch.device("meta"):
        norm = nn.BatchNorm2d if config.batch_norm else None
        theirs = timm.models.VGG(_vgg_layout(config), num_classes=config.num_classes, norm_layer=norm)
    theirs.features = nn.Sequential(*[layer.to_empty(device="cpu") for layer in theirs.features])
    theirs.pre_logits = timm.models.vgg.ConvMlp(8 * config.hidden_dim, config.embed_dim)
    theirs.head.fc = nn.Linear(config.embed_dim, config.num_classes)
    for layer in theirs.features:
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.reset_parameters()
    return theirs


def torchvision_efficientnet(torchvision: ModuleType, config: EfficientNetConfig) -> nn.Module:
    """Returns torchvision's model of a configuration."""
    module = torchvision.models.efficientnet
    settings, width = [], config.stem_dim
    for stage in config.stages:
        kind = module.FusedMBConvConfig if stage.block == "fused" else module.MBConvConfig
        sizes = (stage.expand_ratio, stage.kernel_size, stage.stride, width, stage.out_dim, stage.num_layers)
        settings.append(kind(*sizes))
        width = stage.out_dim
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    return module.EfficientNet(
        settings, 0.0, 0.0, num_classes=config.num_classes, norm_layer=norm, last_channel=config.embed_dim
    )


def timm_efficientnet(timm: ModuleType, config: EfficientNetConfig) -> nn.Module:
    """Returns timm's model of a configuration."""
    text = []
    for stage in config.stages:
        plain = stage.expand_ratio == 1
        kind = ("cn" if plain else "er") if stage.block == "fused" else ("ds" if plain else "ir")
        squeezed = stage.block == "mbconv" and config.squeeze_excite
        end = "_skip" if stage.block == "fused" and plain else "_se0.25" if squeezed else ""
        sizes = f"r{stage.num_layers}_k{stage.kernel_size}_s{stage.stride}_e{stage.expand_ratio}_c{stage.out_dim}"
        text.append([f"{kind}_{sizes}{end}"])
    return timm.models.EfficientNet(
        block_args=timm.models._efficientnet_builder.decode_arch_def(text),
        num_classes=config.num_classes,
        num_features=config.embed_dim,
        stem_size=config.stem_dim,
        pad_type="same" if config.padding == "same" else "",
        act_layer={"silu": nn.SiLU, "relu6": nn.ReLU6}[config.activation],
        norm_layer=partial(nn.BatchNorm2d, eps=config.norm_eps),
    )


def _swin_settings(config: SwinConfig) -> dict[str, Any]:
    return {"embed_dim": config.embed_dim, "mlp_ratio": config.mlp_ratio}


def timm_swin(timm: ModuleType, config: SwinConfig, **changes: Any) -> nn.Module:
    """Returns timm's model of a configuration."""
    settings = {
        **_swin_settings(config),
        "img_size": config.image_size,
        "num_classes": config.num_classes,
        "depths": config.num_layers,
        "num_heads": config.num_heads,
        "window_size": config.window_size,
        "drop_path_rate": 0.0,
    }
    return timm.models.SwinTransformer(**settings | changes)


def torchvision_swin(torchvision: ModuleType, config: SwinConfig) -> nn.Module:
    """Returns torchvision's model of a configuration."""
    return torchvision.models.SwinTransformer(
        **_swin_settings(config),
        patch_size=[4, 4],
        depths=list(config.num_layers),
        num_heads=list(config.num_heads),
        window_size=[config.window_size] * 2,
        num_classes=config.num_classes,
        stochastic_depth_prob=0.0,
    )


def hub_swin(transformers: ModuleType, config: SwinConfig, **changes: Any) -> nn.Module:
    """Returns the model of transformers of a configuration."""
    settings = {
        **_swin_settings(config),
        "image_size": config.image_size,
        "num_labels": config.num_classes,
        "depths": list(config.num_layers),
        "num_heads": list(config.num_heads),
        "window_size": config.window_size,
        "drop_path_rate": 0.0,
        "attn_implementation": "sdpa",
    }
    return transformers.SwinForImageClassification(transformers.SwinConfig(**settings | changes))


def _hub_logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).logits


RESNET = Family(
    variants=("resnet*",),
    tiny={"num_layers": (2, 1, 1, 1), "hidden_dim": 8, "num_classes": 5},
    image_size=(64, 64),
    other_size=(45, 70),
    oracles=(
        Oracle(library="timm", build=timm_resnet, spelling="torchvision"),
        Oracle(library="transformers", build=hub_resnet, spelling="hub", run=_hub_logits),
    ),
)
VGG = Family(
    variants=("vgg*",),
    tiny={"num_layers": (1, 1, 2, 1, 1), "hidden_dim": 4, "embed_dim": 12, "num_classes": 5},
    image_size=(64, 64),
    other_size=(300, 270),
    oracles=(
        Oracle(library="torchvision", build=torchvision_vgg, spelling="torchvision"),
        Oracle(library="timm", build=timm_vgg, spelling="timm", other_size=False),  # it slides over larger maps
    ),
)
NAMES = ("block", "expand_ratio", "kernel_size", "stride", "out_dim", "num_layers")
ROWS = [("mbconv", 1, 3, 1, 8, 2), ("mbconv", 4, 5, 2, 16, 2), ("mbconv", 6, 3, 2, 24, 1)]
ROWS_V2 = [("fused", 1, 3, 1, 8, 2), ("fused", 4, 3, 2, 16, 2), ("mbconv", 4, 3, 2, 24, 2)]
_TORCHVISION = Oracle(library="torchvision", build=torchvision_efficientnet, spelling="torchvision")
_TIMM = Oracle(library="timm", build=timm_efficientnet, spelling="timm")


def _efficientnet(variants: tuple[str, ...], rows: list[tuple[Any, ...]], *oracles: Oracle, **changes: Any) -> Family:
    stages = [dict(zip(NAMES, row)) for row in rows]
    tiny = {"num_classes": 5, "stem_dim": 8, "stages": stages, "embed_dim": 32, "dropout": 0.0, **changes}
    return Family(variants=variants, tiny=tiny, oracles=oracles, image_size=(64, 64), other_size=(45, 70))


EFFICIENTNETS = (
    _efficientnet(("efficientnet_b?",), ROWS, _TORCHVISION, _TIMM),
    _efficientnet(("tf_efficientnet_b?", "tf_efficientnet_l2"), ROWS, _TIMM),
    _efficientnet(
        ("efficientnet_lite0", "tf_efficientnet_lite?"), ROWS, _TIMM, activation="relu6", squeeze_excite=False
    ),
    _efficientnet(("efficientnet_v2_*",), ROWS_V2, _TORCHVISION, _TIMM),
    _efficientnet(("tf_efficientnetv2_*",), ROWS_V2, _TIMM),
)
SWIN = Family(
    variants=("swin_*",),
    tiny={
        "image_size": 32,
        "num_classes": 5,
        "embed_dim": 8,
        "num_layers": (2, 2),
        "num_heads": (2, 4),
        "window_size": 4,
        "mlp_ratio": 2.0,
    },
    other_size=(84, 52),
    oracles=(
        Oracle(library="timm", build=timm_swin, spelling="timm", other_size=False),
        Oracle(library="torchvision", build=torchvision_swin, spelling="torchvision"),
        Oracle(library="transformers", build=hub_swin, spelling="hub", run=_hub_logits),
    ),
)
