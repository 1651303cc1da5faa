"""What is kept of one object in a video: answers and memories of some frames, never of all.

Dims: e a memory's width, h w tokens of 16 pixels down and across, d width.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from nexus.models.cv.sam2.tracking import Answer, Pointed, Remembered


class Kept(NamedTuple):
    """A frame that is kept.

    Attributes:
        found: The answer, of one object.
        memory: (1, e, h, w), as bfloat16, as the authors keep it.
    """

    found: Answer
    memory: Float[Tensor, "1 e h w"]


class Bank:
    """The frames that are kept of an object.

    Attributes:
        prompted: By their numbers; those that were prompted before they were tracked. They are kept for good.
        corrected: Those that were prompted after they were tracked. They are kept for good.
        tracked: The others: of so many that were tracked last.

    Args:
        size: How many tracked frames are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.prompted: dict[int, Kept] = {}
        self.corrected: dict[int, Kept] = {}
        self.tracked: dict[int, Kept] = {}

    def find(self, number: int) -> Kept | None:
        """Returns what is kept of a frame."""
        return self.prompted.get(number) or self.corrected.get(number) or self.tracked.get(number)

    def is_given(self, number: int) -> bool:
        """Returns whether a frame's answer follows a prompt about it, so that tracking does not replace it."""
        return number in self.prompted or number in self.corrected

    def track(self, number: int, kept: Kept) -> None:
        """Keeps a tracked frame, and lets the one go that was tracked longest ago."""
        self.tracked.pop(number, None)
        self.tracked[number] = kept
        while len(self.tracked) > self.size:
            del self.tracked[next(iter(self.tracked))]

    def prompt(self, number: int, kept: Kept, *, as_correction: bool) -> None:
        """Keeps a prompted frame."""
        self.tracked.pop(number, None)
        self.corrected.pop(number, None)
        (self.corrected if as_correction else self.prompted)[number] = kept

    def memories(self, number: int, count: int, *, reverse: bool) -> list[Remembered]:
        """Returns the memories that frame `number` is shown: of all prompted frames, and of the last `count`."""
        found = [Remembered(None, kept.memory) for kept in self.prompted.values()]
        near = [(ago, kept) for ago, kept in self._before(number, count, reverse=reverse)]
        return found + [Remembered(ago, kept.memory) for ago, kept in reversed(near)]

    def pointers(self, number: int, count: int, *, reverse: bool) -> list[Pointed]:
        """Returns the pointers that frame `number` is shown: of prompted frames that it comes after, and the last."""
        sign = -1 if reverse else 1
        ages = {place: sign * (number - place) for place in self.prompted}
        found = [Pointed(ages[place], kept.found.pointers) for place, kept in self.prompted.items() if ages[place] >= 0]
        return found + [Pointed(ago, kept.found.pointers) for ago, kept in self._before(number, count, reverse=reverse)]

    def _before(self, number: int, count: int, *, reverse: bool) -> Iterator[tuple[int, Kept]]:
        """Frames that were tracked one to `count` frames ago, and how long ago."""
        for ago in range(1, count + 1):
            place = number + ago if reverse else number - ago
            kept = self.corrected.get(place) or self.tracked.get(place)
            if kept is not None and place not in self.prompted:
                yield ago, kept
