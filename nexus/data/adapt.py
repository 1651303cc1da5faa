"""Data sets of others: any of torch's `Dataset`s and `DataLoader`s, as a data set of this library.

What is understood: a sequence (`__len__` and `__getitem__`) whose items are `(image, label)`, or mappings with the keys
`image` (or `images`, `pixel_values`) and `label` (or `labels`). An image is one that `load_image` reads; a tensor of
floats is what the model sees: the data set's own transforms have made it, and it is taken as it is.

Names of classes come from `class_names` or `classes`, else they are "0", "1", ...; labels from `labels` or `targets`,
else every item is read once.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from nexus.data.dataset import DataError, Sample
from nexus.data.facets import Annotated, Captioned, Clips, Conversations, Labelled, Named, Pictured, Rays
from nexus.data.images import as_array

IMAGE_KEYS, LABEL_KEYS = ("image", "images", "pixel_values", "img"), ("label", "labels", "target", "class")
LARGEST_LABEL = 2**31 - 1
FACETS = (Pictured, Annotated, Captioned, Conversations, Clips, Rays)


def as_dataset(data: Any, *, name: str = "data") -> Any:
    """Returns a data set with a name: itself if it has one, else an `Adapted` around it.

    Raises:
        DataError: It has no length or no items, or an item is none of the forms that are understood.
    """
    return data if isinstance(data, Adapted) or _is_ours(data) else Adapted(data, name)


def _is_ours(data: Any) -> bool:
    """Whether a data set has a name and a facet; one that is labelled alone may be anybody's, and its items tell."""
    if not isinstance(data, Named):
        return False
    return isinstance(data, FACETS) or (len(data) > 0 and isinstance(data[0], Sample) and isinstance(data, Labelled))


class Adapted:
    """A data set of someone else.

    Attributes:
        name: What tables call it.
        source: The data set itself.
        as_input: Whether its images are tensors of floats, which go into the model as they are.
    """

    def __init__(self, source: Any, name: str) -> None:
        if source is None or isinstance(source, str | bytes | PurePath):
            raise DataError(
                f"{name} is {str(source)!r}; give a data set, or name one in a text, such as 'digits' or 'folder:PATH'."
            )
        if not (callable(getattr(source, "__len__", None)) and callable(getattr(source, "__getitem__", None))):
            raise DataError(
                f"{name} is a {type(source).__name__} without a length or without items by number; give a data set"
                " with __len__ and __getitem__, such as a map-style torch.utils.data.Dataset."
            )
        if len(source) == 0:
            raise DataError(f"{name} ({type(source).__name__}) is empty.")
        self.source, self.name = source, str(getattr(source, "name", None) or type(source).__name__)
        first = self[0].image
        self.as_input = isinstance(first, Tensor)
        self.in_channels = int(first.shape[0]) if isinstance(first, Tensor) else as_array(first).shape[2]
        self.labels = self._labels()
        given = _first(source, ("class_names", "classes"))
        count = int(self.labels.max()) + 1
        self.class_names = tuple(map(str, range(count) if given is None else given))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        """Returns the item as a sample."""
        place = self.path(index)
        image, label = _parts(self.source[index], place)
        return Sample(_image(image, place), _label(label, place), place)

    def path(self, index: int) -> str:
        """Returns what messages call an item."""
        return f"{self.name}[{index}]"

    def part(self, places: Sequence[int]) -> "Adapted":
        """Returns the items at some positions, with the same classes."""
        picked = copy.copy(self)
        picked.source, picked.labels = Subset(self.source, list(places)), self.labels[list(places)]
        return picked

    def _labels(self) -> np.ndarray:
        given = _first(self.source, ("labels", "targets"))
        if given is None:
            given = [self[index].label for index in range(len(self))]
        return np.asarray([_label(label, self.path(index)) for index, label in enumerate(given)], dtype=np.int64)


def _first(source: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(source, name) for name in names if getattr(source, name, None) is not None), None)


def _parts(item: Any, place: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image, label = (next((k for k in keys if k in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
        if image is None or label is None:
            raise DataError(
                f"{place} has the keys {', '.join(map(str, item))}; it needs an image ({', '.join(IMAGE_KEYS)}) and a"
                f" label ({', '.join(LABEL_KEYS)})."
            )
        return item[image], item[label]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    shown = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
    raise DataError(f"{place} is {shown}; an item is (image, label), or a mapping with the keys 'image' and 'label'.")


def _image(image: Any, place: str) -> Any:
    if isinstance(image, Tensor) and image.is_floating_point():
        if image.ndim != 3:
            raise DataError(f"{place}: the tensor has the shape {tuple(image.shape)}; an image is (c, h, w).")
        return image
    return image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) and image.ndim == 3 else image


def _label(label: Any, place: str) -> int:
    try:
        number = label.item() if isinstance(label, Tensor | np.generic) else label
        if isinstance(number, bool) or number != int(number) or not 0 <= number <= LARGEST_LABEL:
            raise ValueError
        return int(number)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # a tensor of several numbers, and infinity
        raise DataError(f"{place}: the label is {label!r}; it must be the number of a class, 0 or above.") from None
