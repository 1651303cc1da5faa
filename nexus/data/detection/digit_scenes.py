"""Handwritten digits on photos: a small real-image set for detection and segmentation that needs no download.

Digits are those of scikit-learn, photos those of scikit-image; held-out scenes have digits and parts of photos that no
training scene has. A scene is made from its number alone, so any of them can be made again anywhere.

Dims: h w pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PIL

from nexus.data.datasets.digits import SPLITS, Digits
from nexus.data.detection.rle import encode
from nexus.data.detection.scene import Annotations, DetectionSample, Object, Scene, all_labels

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina")
COUNTS = {"train": 400, "val": 100}
SIDE = 96
INK = 0.35
"""Share of the darkest ink from which on a pixel belongs to the digit."""
MOST_COVERED = 0.2
"""Share of a digit that a later one may cover; what is covered is cut out of its mask."""


class Painted(NamedTuple):
    """The colour of a digit, 0 to 255, and its class."""

    colour: np.ndarray
    label: int


Paint = Callable[[int, np.ndarray, np.random.Generator], Painted]
"""From a digit, the mean colour behind it and a source of chance."""


class MadeScenes:
    """Scenes in memory.

    Attributes:
        annotations: What is in them.
        labels: The classes of all objects.
    """

    in_channels = 3

    def __init__(self, made: Sequence[tuple[PIL.Image, Scene]], class_names: tuple[str, ...]) -> None:
        self._images = [image for image, _ in made]
        self.annotations = Annotations(tuple(scene for _, scene in made), class_names)
        self.labels = all_labels(self.annotations.scenes)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> DetectionSample:
        """Returns a scene; its path is such as "digit-scenes/val[3]"."""
        scene = self.annotations.scenes[index]
        return DetectionSample(self._images[index], scene, scene.path)

    def path(self, index: int) -> str:
        """Returns the path of a scene."""
        return self.annotations.scenes[index].path


class DigitScenes(MadeScenes):
    """Photos of 96 x 96 pixels with one to five digits of 14 to 36 pixels, each in a colour of its own."""

    name = "digit-scenes"
    class_names: tuple[str, ...] = tuple("0123456789")

    def __init__(self, split: str = "train", count: int | None = None) -> None:
        """Makes the scenes.

        Args:
            split: "train" or "val".
            count: How many; None means 400 to train on and 100 held out. More are others, fewer the first ones.

        Raises:
            ValueError: The split is another one.
            ImportError: scikit-learn or scikit-image is not installed.
        """
        if split not in SPLITS:
            raise ValueError(f"digit-scenes have no split {split!r}; use 'train' or 'val' (the held-out ones).")
        material = Material(self.name, split, Digits(split), photo_parts(split), _paint)
        made = [make_scene(material, index) for index in range(COUNTS[split] if count is None else count)]
        super().__init__(made, self.class_names)


def photo_parts(split: str) -> list[PIL.Image]:
    """Returns the photos: their upper four fifths to train on, the rest held out.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            "Digits on photos need those of scikit-image, which is not installed: pip install scikit-image."
        ) from error
    parts = []
    for name in PHOTOS:
        pixels: Any = getattr(data, name)()
        border = pixels.shape[0] * 4 // 5
        parts.append(PIL.fromarray(pixels[:border] if split == "train" else pixels[border:]))
    return parts


class Material(NamedTuple):
    """What the scenes of a split are made of; `paint` colours a digit."""

    name: str
    split: str
    digits: Digits
    photos: list[PIL.Image]
    paint: Paint


def make_scene(material: Material, index: int) -> tuple[PIL.Image, Scene]:
    """Returns the scene of a number, and what is in it."""
    split, digits, photos = material.split, material.digits, material.photos
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SPLITS.index(split), index])))
    image = np.array(cut_photo(photos[rng.integers(len(photos))], SIDE, rng), dtype=np.float32)
    masks: list[np.ndarray] = []
    labels: list[int] = []
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(len(digits)))
        ink = _ink(digits[place].image, rng)
        mask = ink >= INK
        free = _uncovered(masks, mask)
        if free < 1 - MOST_COVERED or not mask.any():
            continue
        colour, label = material.paint(int(digits.labels[place]), image[mask].mean(axis=0), rng)
        image += (colour - image) * np.clip(ink / INK, 0, 1)[..., None] ** 2
        masks = [other & ~mask for other in masks] + [mask]
        labels.append(label)
    objects = []
    for label, mask in zip(labels, masks):
        rle = encode(mask)
        objects.append(Object(label, rle.box, rle))
    path = f"{material.name}/{split}[{index}]"
    return PIL.fromarray(np.rint(image).astype(np.uint8)), Scene(path, SIDE, SIDE, tuple(objects), index + 1)


def cut_photo(photo: PIL.Image, length: int, rng: np.random.Generator) -> PIL.Image:
    """Returns a square part of a photo, scaled to `length` pixels a side."""
    shortest = min(photo.size)
    side = int(rng.integers(min(length // 2, shortest), shortest + 1))
    left, top = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
    return photo.resize((length, length), PIL.Resampling.BILINEAR, (left, top, left + side, top + side))


def _ink(digit: Any, rng: np.random.Generator) -> np.ndarray:
    """A digit somewhere in an empty scene: how much ink lies on each pixel, 0 to 1."""
    side = int(rng.integers(14, 37))
    large = np.asarray(digit.resize((side, side), PIL.Resampling.BICUBIC), dtype=np.float32) / 255
    left, top = (int(rng.integers(SIDE - side + 1)) for _ in range(2))
    ink = np.zeros((SIDE, SIDE), dtype=np.float32)
    ink[top : top + side, left : left + side] = large
    return ink


def _uncovered(masks: list[np.ndarray], mask: np.ndarray) -> float:
    """The smallest share that is left of any digit if another one lies over it; counted against its present mask."""
    return min(((other & ~mask).sum() / other.sum() for other in masks), default=1.0)


def digit_colour(behind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a random colour that stands out from what lies behind it."""
    while True:
        colour = rng.integers(256, size=3)
        if np.abs(colour - behind).mean() > 70:
            return colour.astype(np.float32)


def _paint(digit: int, behind: np.ndarray, rng: np.random.Generator) -> Painted:
    return Painted(digit_colour(behind, rng), digit)
