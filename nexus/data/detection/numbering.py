"""The numbers that a data set gives to its images and classes, for results that are to be measured on it."""

import os
from collections.abc import Sequence
from pathlib import Path

from nexus.data.detection.coco import numbered
from nexus.data.detection.scene import Annotations


class Numbers:
    """Finds the number of an image by its file, and those of classes by their names."""

    def __init__(self, annotations: Annotations) -> None:
        self.class_names, self.class_ids = annotations.class_names, annotations.class_ids
        self._places: dict[str, int] = {}
        self._names: dict[str, list[int]] = {}
        for number, scene in numbered(annotations.scenes):
            self._places[os.path.realpath(scene.path)] = number
            self._names.setdefault(Path(scene.path).name, []).append(number)

    def image(self, path: str) -> int:
        """The number of an image: of the same file, or of the only one of that name.

        Raises:
            ValueError: The data set does not have it.
        """
        number = self._places.get(os.path.realpath(path))
        named = self._names.get(Path(path).name, [])
        if number is None and len(named) != 1:
            raise ValueError(f"{path} is no image of the data set; predict on its images, or leave --data out.")
        return named[0] if number is None else number

    def classes(self, names: Sequence[str]) -> tuple[int | None, ...]:
        """The number of each of a model's classes; None for those that the data set does not have.

        Raises:
            ValueError: It has none of them.
        """
        known = dict(zip(self.class_names, self.class_ids))
        if tuple(names) == tuple(map(str, range(len(names)))) and len(names) == len(known):
            return tuple(self.class_ids)  # a model that calls its classes by position
        found = tuple(known.get(name) for name in names)
        if not any(number is not None for number in found):
            raise ValueError(
                f"the data set has none of the model's classes: {', '.join(names[:3])}, ... and it has"
                f" {', '.join(self.class_names[:3])}, ..."
            )
        return found
