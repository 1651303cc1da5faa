"""Vision models, ready-made; parameters bear the names of public checkpoints, dots replaced by underscores."""

from mithril.models.vision.clip import clip, modified_resnet
from mithril.models.vision.cnn import multi_task_cnn, simple_cnn
from mithril.models.vision.resnet import resnet, resnet18, resnet34, resnet50, resnet101, resnet152
from mithril.models.vision.vision_transformer import vision_transformer

__all__ = [
    "clip",
    "modified_resnet",
    "multi_task_cnn",
    "resnet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "simple_cnn",
    "vision_transformer",
]
