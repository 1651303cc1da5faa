"""Real photos without a download: random parts of the colour photos that come with scikit-image.

They have no labels that mean anything: they are for models that learn from pixels alone. The held-out part is of
another photo than those to train on.
"""

from functools import cache

import numpy as np
from PIL import Image as PIL

from nexus.data.dataset import Sample

PHOTOS = {"train": ("astronaut", "coffee", "rocket", "motorcycle"), "val": ("cat",)}
COUNTS = {"train": 2048, "val": 256}
SMALLEST, LARGEST = 64, 192  # sides of a part in pixels


class Photos:
    """Square parts of photos: 2,048 of four photos to train on, 256 of a fifth held out.

    Which part is drawn once and for all from its position. The label is the photo.
    """

    name = "photos"
    class_names: tuple[str, ...] = (*PHOTOS["train"], *PHOTOS["val"])
    in_channels = 3

    def __init__(self, split: str = "train"):
        """Reads the photos.

        Raises:
            ValueError: The split is neither "train" nor "val".
            ImportError: scikit-image is not installed.
        """
        if split not in PHOTOS:
            raise ValueError(f"The photos have no split {split!r}; use 'train' or 'val' (of a photo held out).")
        self._names, self._seed = PHOTOS[split], list(PHOTOS).index(split)
        self._photos = [read_photo(name) for name in self._names]
        places = np.arange(COUNTS[split]) % len(self._names)
        self.labels = np.array([self.class_names.index(self._names[place]) for place in places], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Returns the part of that number; its path tells where it is, as "coffee[120:184, 30:94]"."""
        photo, (top, left, side) = self._part(index)
        part = photo[top : top + side, left : left + side]
        return Sample(PIL.fromarray(part), int(self.labels[index]), self.path(index))

    def path(self, index: int) -> str:
        """Returns the path of a sample."""
        _, (top, left, side) = self._part(index)
        name = self.class_names[self.labels[index]]
        return f"{name}[{top}:{top + side}, {left}:{left + side}]"

    def _part(self, index: int) -> tuple[np.ndarray, tuple[int, int, int]]:
        index = range(len(self))[index]
        photo = self._photos[index % len(self._photos)]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self._seed, spawn_key=(index,))))
        side = int(rng.integers(SMALLEST, LARGEST, endpoint=True))
        top, left = (int(rng.integers(0, length - side, endpoint=True)) for length in photo.shape[:2])
        return photo, (top, left, side)


@cache
def read_photo(name: str) -> np.ndarray:
    """Returns a photo (h, w, 3) in uint8."""
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            "The photos come with scikit-image, which is not installed: pip install scikit-image."
        ) from error
    if name == "motorcycle":
        return np.asarray(data.stereo_motorcycle()[0])
    return np.asarray(getattr(data, name)())
