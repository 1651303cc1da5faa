"""What a data set is: a sequence of samples with the names of its classes."""

from typing import NamedTuple, Protocol

import numpy as np

from nexus.data.images import Image


class DataError(ValueError):
    """A data set cannot be used: the message names the file and says what to change."""


class Sample(NamedTuple):
    """One labelled image.

    Attributes:
        image: See `nexus.data.images` for the kinds.
        label: Position of the class in the data set's `class_names`.
        path: The file, or a place such as "digits[17]"; what messages call the image.
    """

    image: Image
    label: int
    path: str


class Dataset(Protocol):
    """A sequence of samples.

    Attributes:
        name: What tables call the data set.
        class_names: Name of each class; a label is a position in it.
        in_channels: Channels of its images: 1 grey, 3 RGB, or what its arrays have.
        labels: int64 (n,), known without decoding an image.
    """

    name: str
    class_names: tuple[str, ...]
    in_channels: int
    labels: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def open_sample(dataset: Dataset, index: int) -> Sample:
    """Returns `dataset[index]`; a data set that has a method `open` may leave the image undecoded.

    The loader reads through this, because a crop that is drawn first can ask a JPEG for fewer pixels.
    """
    read = getattr(dataset, "open", dataset.__getitem__)
    return read(index)


def sample_path(dataset: Dataset, index: int) -> str:
    """Returns `dataset[index].path`; a data set that has a method `path` tells it without reading the image."""
    tell = getattr(dataset, "path", None)
    return tell(index) if tell is not None else open_sample(dataset, index).path
