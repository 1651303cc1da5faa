"""Masked-image pre-training: a model paints the patches that it does not see."""

from nexus.tasks.masked_images.reconstruction import Reconstruction
from nexus.tasks.masked_images.task import MaskedImageTask

TASK = MaskedImageTask

__all__ = ["TASK", "MaskedImageTask", "Reconstruction"]
