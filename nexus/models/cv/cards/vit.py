"""Cards of the Vision Transformers."""

from nexus.core.registry import ModelCard, register
from nexus.models.cv.vit import VARIANTS, VisionTransformer

register(*(ModelCard(name=name, model_class=VisionTransformer, config=config) for name, config in VARIANTS.items()))
