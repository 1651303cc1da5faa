"""What a data set may offer beside a name, a length and items: facets, each checked where it is needed.

`isinstance(dataset, Captioned)` asks whether the attributes are there; a data set may have several facets, or none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from nexus.data.detection.scene import Annotations


@runtime_checkable
class Named(Protocol):
    """What every data set has: a name, a length, items.

    Attributes:
        name: What tables call it.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@runtime_checkable
class Pictured(Protocol):
    """Items are images.

    Attributes:
        in_channels: Channels of the images: 1 grey, 3 RGB, or what its arrays have.
    """

    in_channels: int


@runtime_checkable
class Labelled(Protocol):
    """Items have a class.

    Attributes:
        class_names: Name of each class; a label is a position in it.
        labels: int64 (n,), known without decoding an image.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray


@runtime_checkable
class Annotated(Protocol):
    """Images have objects.

    Attributes:
        class_names: Of the objects.
        annotations: Everything but the pixels.
    """

    class_names: tuple[str, ...]
    annotations: Annotations


@runtime_checkable
class Captioned(Protocol):
    """Images have sentences about them.

    Attributes:
        captions: Those of each item.
    """

    captions: Sequence[Sequence[str]]


IMAGE_PLACE = "<image>"
"""Where an image stands in what a user says."""


class Turn(NamedTuple):
    """What was said once in a conversation, and by whom: "user" or "assistant"."""

    role: str
    text: str


@runtime_checkable
class Conversations(Protocol):
    """Items have questions and answers, about their `image`, or their `images` in the order of their places.

    Attributes:
        conversations: The turns of each item, in order.
    """

    conversations: Sequence[Sequence[Turn]]


@runtime_checkable
class Clips(Protocol):
    """Items are sequences of frames; those with masks are a `nexus.data.clips.Clip` each.

    Attributes:
        num_frames: Of each item.
    """

    num_frames: Sequence[int]


@runtime_checkable
class Rays(Protocol):
    """Rays of calibrated images with the colours that were seen along them. Training draws rays from all of them at
    random, so that there are no epochs; measuring goes through the items, which are whole images.

    Attributes:
        num_rays: Of all items together.
    """

    num_rays: int

    def rays(self, places: np.ndarray) -> Mapping[str, Tensor]:
        """Returns what is known of the rays at these places (b,), 0 to `num_rays - 1`; each value has b rows."""
        ...


def class_names_of(dataset: object) -> tuple[str, ...]:
    """Returns the names of a data set's classes; none where it has no classes."""
    return tuple(dataset.class_names) if isinstance(dataset, Labelled | Annotated) else ()
