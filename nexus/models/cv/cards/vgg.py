"""Cards of the VGGs."""

from nexus.core.card import ModelCard
from nexus.models.cv.cards.imagenet import named
from nexus.models.cv.cards.sources import torchvision_weights
from nexus.models.cv.vgg import VARIANTS, VGG
from nexus.models.registry import register

_FILES = {  # file, top-1, parameters: torchvision's metadata
    "vgg11": ("vgg11-8a719046.pth", 69.02, 132_863_336),
    "vgg11_bn": ("vgg11_bn-6002323d.pth", 70.37, 132_868_840),
    "vgg13": ("vgg13-19584684.pth", 69.928, 133_047_848),
    "vgg13_bn": ("vgg13_bn-abd245e5.pth", 71.586, 133_053_736),
    "vgg16": ("vgg16-397923af.pth", 71.592, 138_357_544),
    "vgg16_bn": ("vgg16_bn-6c64b313.pth", 73.36, 138_365_992),
    "vgg19": ("vgg19-dcbb9e9d.pth", 72.376, 143_667_240),
    "vgg19_bn": ("vgg19_bn-c79401a0.pth", 74.218, 143_678_248),
}

register(
    *(
        ModelCard(
            name=name,
            model_class=VGG,
            config=VARIANTS[name],
            num_parameters=num_parameters,
            weights=named(VARIANTS[name], [torchvision_weights("tv_in1k", file, top1=top1)]),
            paper="https://arxiv.org/abs/1409.1556",
            good_for=("100k+",),
        )
        for name, (file, top1, num_parameters) in _FILES.items()
    )
)
