"""SAM.

Kirillov et al., "Segment Anything", 2023. https://arxiv.org/abs/2304.02643

An image encoder runs once per image (`image_encoder.py`); prompts become tokens (`prompt_encoder.py`); a light decoder
answers each prompt with masks (`mask_decoder.py`). `sam.py` puts them together; `practice.py` trains them.
"""

from nexus.models.cv.sam.config import SAMConfig
from nexus.models.cv.sam.practice import Targets
from nexus.models.cv.sam.prompts import Prompts
from nexus.models.cv.sam.sam import SAM, VARIANTS

__all__ = ["SAM", "VARIANTS", "Prompts", "SAMConfig", "Targets"]
