"""Some items of a data set, as a data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nexus.data.adapt import Adapted
from nexus.data.dataset import Dataset, open_sample, sample_path
from nexus.data.facets import Annotated, Labelled

BY_ITEM = ("captions", "conversations", "num_frames")
"""What else a facet says of each item."""
OF_ALL = ("class_names", "in_channels")
"""What is said of all items alike."""


class Part:
    """The items of a data set at some positions, in their order; it has the facets that the data set has.

    Args:
        whole: The data set.
        places: Positions in it.
    """

    def __init__(self, whole: Dataset, places: Sequence[int]) -> None:
        self.whole, self.places = whole, [int(place) for place in places]
        self.name = whole.name
        if isinstance(whole, Labelled):
            self.labels = np.asarray(whole.labels)[self.places]
        if isinstance(whole, Annotated):
            self.annotations = whole.annotations.of([whole.annotations.scenes[place] for place in self.places])
        for facet in BY_ITEM:
            if facet in dir(whole):
                values = getattr(whole, facet)
                setattr(self, facet, [values[place] for place in self.places])
        for said in OF_ALL:
            if said in dir(whole):
                setattr(self, said, getattr(whole, said))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        return self.whole[self.places[index]]


class FilePart(Part):
    """Likewise of a data set that tells its files without reading them."""

    def path(self, index: int) -> str:
        """The file of an item."""
        return sample_path(self.whole, self.places[index])

    def open(self, index: int) -> Any:
        """The item, whose image may be left undecoded."""
        return open_sample(self.whole, self.places[index])


def part_of(whole: Dataset, places: Sequence[int]) -> Part | Adapted:
    """Returns the items at some positions as a data set with the same facets."""
    if isinstance(whole, Adapted):
        return whole.part([int(place) for place in places])
    return (FilePart if "path" in dir(whole) else Part)(whole, places)
