"""Which images are held out where a data set says nothing of splits.

A hash of each image's own path decides, so that an image never changes sides when others come or go.
"""

import hashlib
from collections.abc import Sequence

HELD_OUT = 0.2
"""Of the images, held out for validation."""


def held_out_draw(path: str) -> float:
    """Returns the fixed number in [0, 1) that a relative path draws; below `HELD_OUT` it is held out."""
    return int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()[:6]) / 2**48


def held_out(paths: Sequence[str]) -> list[bool]:
    """Returns for each relative path whether it is held out; of two images or more at least one is, and one is not."""
    draws = [held_out_draw(path) for path in paths]
    if len(draws) < 2:
        return [False] * len(draws)
    lowest, highest = min(draws), max(draws)
    return [draw == lowest or (draw < HELD_OUT and draw != highest) for draw in draws]
