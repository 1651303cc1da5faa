"""Models that encode an image once and then answer clicks on it, as a page needs them on which a person annotates.

Dims: h w pixels of the image as given.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from torch import nn

from nexus.data.images import Image

Box = tuple[float, float, float, float]


class Clicks(NamedTuple):
    """What is clicked on to point at one object, in pixels of the image as given.

    Attributes:
        points: x, y and 1 (of the object) or 0 (not of it), in the order of the clicks.
        box: x1, y1, x2, y2 around the object, or None.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: Box | None = None


class Guess(NamedTuple):
    """One answer to clicks.

    Attributes:
        score: How good the model says that it is, mostly 0 to 1.
        memory: Of the model's own: what the next click on the same object goes on from, and what `mask` is made of.
    """

    score: float
    memory: Any


class Clicker(Protocol):
    """A model that encodes an image once, and then answers clicks on it."""

    def encode(self, image: Image) -> Any:
        """Returns what `ask` and `mask` need of an image."""
        ...

    def size_of(self, encoded: Any) -> int:
        """Returns how many bytes an encoded image takes."""
        ...

    def ask(self, encoded: Any, clicks: Clicks, memory: Any = None) -> Sequence[Guess]:
        """Returns what an object may be, the best guess first.

        Args:
            encoded: The image.
            clicks: All clicks on the object so far.
            memory: Of the guess that the last click corrects; None for the first.

        Raises:
            ValueError: Nothing was clicked on, or a place outside of the image.
        """
        ...

    def mask(self, encoded: Any, guess: Guess) -> Bool[np.ndarray, "h w"]:
        """Returns the mask of a guess, pixel by pixel of the image as given."""
        ...


@runtime_checkable
class Clickable(Protocol):
    """A task whose models encode an image once, and then answer clicks on it."""

    def clicker(self, model: nn.Module) -> Clicker:
        """Returns the model, in evaluation mode, ready to be asked."""
        ...


@runtime_checkable
class Following(Protocol):
    """A task whose models follow an object from picture to picture."""

    def follow(
        self, model: nn.Module, frames: Iterable[Image], mask: Bool[np.ndarray, "h w"]
    ) -> Iterator[Bool[np.ndarray, "h w"]]:
        """Yields an object's mask in each frame after the first, where it is `mask`.

        Raises:
            ValueError: A frame has another size than the first.
        """
        ...
