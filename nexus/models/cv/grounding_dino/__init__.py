"""Grounding DINO.

Liu et al., "Grounding DINO: Marrying DINO with Grounded Pre-Training for Open-Set Object Detection", 2023.
https://arxiv.org/abs/2303.05499

A caption becomes features, phrase by phrase (`phrases.py`, `bert.py`); image and text enhance each other
(`feature_enhancer.py`); the places that fit the text best become queries (`query_selection.py`), and a decoder refines
their boxes with an eye on both (`decoder.py`). `grounding_dino.py` puts them together; `losses.py` trains them.
"""

from nexus.models.cv.grounding_dino.config import GroundingDINOConfig
from nexus.models.cv.grounding_dino.grounding_dino import VARIANTS, GroundingDINO, Text

__all__ = ["VARIANTS", "GroundingDINO", "GroundingDINOConfig", "Text"]
