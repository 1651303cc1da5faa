"""SAM 2 and 2.1.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024. https://arxiv.org/abs/2408.00714

An image encoder runs once per image or frame (`hiera.py`, `image_encoder.py`); prompts become tokens as in SAM; a
light decoder answers with masks (`mask_decoder.py`). In videos, frames are remembered (`memory_encoder.py`,
`pointers.py`) and looked at (`memory_attention.py`). `sam2.py` puts them together, `tracking.py` has the stages of a
frame, `video_session.py` follows objects.
"""

from nexus.models.cv.sam2.config import SAM2Config
from nexus.models.cv.sam2.image_encoder import Embedding
from nexus.models.cv.sam2.sam2 import SAM2, VARIANTS
from nexus.models.cv.sam2.video_session import Tracked, VideoSession

__all__ = ["SAM2", "VARIANTS", "Embedding", "SAM2Config", "Tracked", "VideoSession"]
