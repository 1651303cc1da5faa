"""A small classification problem of real photos without a download: from which photo is this part?

Parts to learn from lie in the left half of each photo, held-out ones in its right half, so that no pixel is in both.
"""

from typing import ClassVar

import numpy as np
from PIL import Image as PIL

from nexus.data.dataset import Sample
from nexus.data.datasets.photos import read_photo

COUNTS = {"train": 10, "val": 10}  # parts of each photo
SIDE = 72  # pixels


class PhotoCrops:
    """Square parts of eight photos, ten of each to train on and ten held out; the label is the photo."""

    name = "photo-crops"
    class_names: tuple[str, ...] = ("astronaut", "camera", "cat", "coffee", "coins", "motorcycle", "retina", "rocket")
    in_channels: ClassVar[int] = 3

    def __init__(self, split: str = "train") -> None:
        """Reads the photos.

        Raises:
            ValueError: The split is neither "train" nor "val".
            ImportError: scikit-image is not installed.
        """
        if split not in COUNTS:
            raise ValueError(f"The photo crops have no split {split!r}; use 'train' or 'val' (the other halves).")
        self._photos = [read_photo(name) for name in self.class_names]
        self._split, self._count = split, COUNTS[split]
        self.labels = np.repeat(np.arange(len(self.class_names), dtype=np.int64), self._count)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Returns the part of that number, the same each time."""
        label = int(self.labels[index])
        photo = self._photos[label]
        height, half = photo.shape[0], photo.shape[1] // 2
        rng = np.random.Generator(np.random.PCG64([list(COUNTS).index(self._split), range(len(self))[index]]))
        top, left = (int(rng.integers(0, length - SIDE, endpoint=True)) for length in (height, half))
        left += half if self._split == "val" else 0
        part = PIL.fromarray(photo[top : top + SIDE, left : left + SIDE]).convert("RGB")
        return Sample(part, label, f"{self.class_names[label]}[{top}:{top + SIDE}, {left}:{left + SIDE}]")
