"""Digits on photos whose classes are a colour and a digit, such as "red seven": words for detectors that read them.

Made as digit-scenes are. Ten pairs, one of each digit, can be held apart: then no training scene has any of them, and
the held-out scenes have nothing else, so that a model must join words that it only knows from other pairs.
"""

import numpy as np

from nexus.data.datasets.digits import SPLITS, Digits
from nexus.data.detection.digit_scenes import COUNTS, MadeScenes, Material, Painted, make_scene, photo_parts

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 70, 230),
    "yellow": (245, 220, 40),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CONTRAST = 70
"""Mean difference to what lies behind, from which on a colour stands out."""


class DigitWords(MadeScenes):
    """Photos of 96 x 96 pixels with one to five digits in six colours: 60 classes, in every split the same.

    Args:
        split: "train" or "val".
        count: How many; None means 400 to train on and 100 held out.
        apart: Whether ten pairs are kept out of "train" and are all that "val" has; see `is_apart`.

    Raises:
        ValueError: The split is another one.
        ImportError: scikit-learn or scikit-image is not installed.
    """

    class_names: tuple[str, ...] = tuple(f"{colour} {digit}" for colour in COLOURS for digit in DIGITS)

    def __init__(self, split: str = "train", count: int | None = None, *, apart: bool = False) -> None:
        self.name = "digit-words-apart" if apart else "digit-words"
        if split not in SPLITS:
            raise ValueError(f"{self.name} has no split {split!r}; use 'train' or 'val' (the held-out scenes).")
        allowed = [_colours(digit, split, apart=apart) for digit in range(len(DIGITS))]

        def paint(digit: int, behind: np.ndarray, rng: np.random.Generator) -> Painted:
            return _paint(digit, allowed[digit], behind, rng)

        material = Material(self.name, split, Digits(split), photo_parts(split), paint)
        made = [make_scene(material, index) for index in range(COUNTS[split] if count is None else count)]
        super().__init__(made, self.class_names)


def is_apart(colour: int, digit: int) -> bool:
    """Returns whether a pair can be held apart: one colour of each digit, and each colour with one or two digits."""
    return digit % len(COLOURS) == colour


def _colours(digit: int, split: str, *, apart: bool) -> list[int]:
    """Returns the colours in which a split has a digit."""
    return [colour for colour in range(len(COLOURS)) if not apart or is_apart(colour, digit) == (split == "val")]


def _paint(digit: int, colours: list[int], behind: np.ndarray, rng: np.random.Generator) -> Painted:
    """Returns a random colour that stands out, or else the one that does most, and the class."""
    values = list(COLOURS.values())
    differences = {int(one): np.abs(np.array(values[one]) - behind).mean() for one in rng.permutation(colours)}
    standing = [one for one, difference in differences.items() if difference > CONTRAST]
    colour = standing[0] if standing else max(differences, key=lambda one: differences[one])
    return Painted(np.array(values[colour], dtype=np.float32), colour * len(DIGITS) + digit)
