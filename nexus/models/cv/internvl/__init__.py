"""InternVL 2 to 3.5: an image encoder, a projector, and a language model of transformers."""

from nexus.models.cv.internvl.config import InternVLConfig
from nexus.models.cv.internvl.internvl import InternVL

__all__ = ["InternVL", "InternVLConfig"]
