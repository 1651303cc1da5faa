"""Cards of the ResNets."""

from nexus.core.registry import ModelCard, register
from nexus.models.cv.resnet import VARIANTS, ResNet

register(*(ModelCard(name=name, model_class=ResNet, config=config) for name, config in VARIANTS.items()))
