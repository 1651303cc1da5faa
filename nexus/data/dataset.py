"""What a data set is: a sequence of samples with the names of its classes."""

from typing import Any, NamedTuple, Protocol

from nexus.core.text import as_message
from nexus.data.images import Image
from nexus.data.workers import note


class DataError(ValueError):
    """A data set cannot be used: the message names the file and says what to change, in one line.

    What a file says may be quoted in it, and is spelled out where it would break the line or move the cursor.
    """

    def __init__(self, message: str) -> None:
        super().__init__(as_message(message))


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
    """A sequence of items with a name. What else one offers is a facet, see `nexus.data.facets`.

    Attributes:
        name: What tables call the data set.
    """

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def open_sample(dataset: Dataset, index: int) -> Sample:
    """Returns `dataset[index]`; a data set that has a method `open` may leave the image undecoded.

    The loader reads through this, because a crop that is drawn first can ask a JPEG for fewer pixels.
    """
    note(index)
    read = getattr(dataset, "open", dataset.__getitem__)
    return read(index)


def sample_path(dataset: Dataset, index: int) -> str:
    """Returns `dataset[index].path`; a data set that has a method `path` tells it without reading the image."""
    tell = getattr(dataset, "path", None)
    return tell(index) if tell is not None else open_sample(dataset, index).path
