"""The handwritten digits of scikit-learn: 1,797 real grey images of 8 x 8 pixels, ten classes, nothing to download.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from typing import Any

import numpy as np
from PIL import Image as PIL

from nexus.data.dataset import Sample

NUM_VAL = 360
SPLITS = ("train", "val")


class Digits:
    """The digits 0 to 9, split once and for all: 1,437 to train, 360 held out, each class in proportion."""

    name = "digits"
    class_names: tuple[str, ...] = tuple("0123456789")
    in_channels = 1

    def __init__(self, split: str = "train"):
        """Reads the images out of scikit-learn.

        Raises:
            ValueError: The split is neither "train" nor "val".
            ImportError: scikit-learn is not installed.
        """
        if split not in SPLITS:
            raise ValueError(f"The digits have no split {split!r}; use 'train' or 'val' (the held-out ones).")
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "The digits come with scikit-learn, which is not installed: pip install scikit-learn."
            ) from error
        bunch: Any = load_digits()
        self._positions = stratified_split(bunch.target, NUM_VAL, seed=0)[SPLITS.index(split)]
        # 17 levels of ink, 0 to 16.
        levels = np.rint(bunch.images[self._positions] * (255 / 16)).astype(np.uint8)
        self._images = [PIL.fromarray(image) for image in levels]
        self.labels = bunch.target[self._positions].astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Returns the sample; its path is the place in scikit-learn's own order, as "digits[17]"."""
        return Sample(self._images[index], int(self.labels[index]), self.path(index))

    def path(self, index: int) -> str:
        """Returns the path of a sample."""
        return f"digits[{self._positions[index]}]"


def stratified_split(labels: np.ndarray, num_held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions (kept, held out), both sorted: every class is held out in proportion to its size.

    Seats that do not divide evenly go to the largest remainders (Hamilton's method), the first class first.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quotas = counts * num_held_out / len(labels)
    seats = np.floor(quotas).astype(int)
    for position in np.argsort(seats - quotas, kind="stable")[: num_held_out - seats.sum()]:
        seats[position] += 1
    rng = np.random.RandomState(seed)  # the one generator whose stream NumPy promises never to change
    shuffled = [rng.permutation(np.flatnonzero(labels == name)) for name in classes]
    held_out = np.sort(np.concatenate([members[:seat] for members, seat in zip(shuffled, seats)]))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
