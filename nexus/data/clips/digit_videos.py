"""Handwritten digits that move over photos: short videos with exact masks that need no download.

Made of the material of digit-scenes: a clip comes from its number alone, and held-out clips have digits and parts of
photos that no training clip has. Digits drift and turn, cross before each other, come in late, and vanish for a while
behind a post that stands in some clips.

Dims: t frames, h w pixels.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image as PIL

from nexus.data.clips.clip import Clip, Ids, check_frame
from nexus.data.datasets.digits import SPLITS, Digits
from nexus.data.detection.digit_scenes import INK, cut_photo, digit_colour, photo_parts

COUNTS = {"train": 400, "val": 48}
FRAMES = 12
SIDE = 64
LEAST_AREA = 24
"""Pixels of a digit in the frame where it is seen first; a frame that shows less of it shows nothing of it."""
KEPT = 64
"""Clips whose pixels are kept at a time; they are made again when they are asked for later."""


class DigitVideos:
    """Clips of 12 frames of 64 x 64 pixels with one to three digits, each in a colour of its own."""

    name = "digit-videos"
    class_names: tuple[str, ...] = tuple("0123456789")
    in_channels = 3

    def __init__(self, split: str = "train", count: int | None = None) -> None:
        """Reads the digits and the photos; clips are made when they are asked for.

        Args:
            split: "train" or "val".
            count: How many; None means 400 to train on and 48 held out. More are others, fewer the first ones.

        Raises:
            ValueError: The split is another one.
            ImportError: scikit-learn or scikit-image is not installed.
        """
        if split not in SPLITS:
            raise ValueError(f"digit-videos have no split {split!r}; use 'train' or 'val' (the held-out ones).")
        self.split, self.count = split, COUNTS[split] if count is None else count
        self._made = lru_cache(KEPT)(_Maker(split, Digits(split), photo_parts(split)))

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        """Is made anew in another process."""
        return DigitVideos, (self.split, self.count)

    @property
    def num_frames(self) -> Sequence[int]:
        """Of each clip."""
        return [FRAMES] * self.count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        """Returns a clip; its path is such as "digit-videos/val[3]"."""
        if not -self.count <= index < self.count:
            raise IndexError(f"digit-videos have {self.count} clips, and none of number {index}.")
        return self._made(index % self.count)

    def path(self, index: int) -> str:
        """Returns the path of a clip."""
        return f"digit-videos/{self.split}[{index}]"


class MadeClip:
    """A clip in memory, see `Clip`."""

    def __init__(self, path: str, frames: np.ndarray, ids: np.ndarray, labels: Mapping[int, int]) -> None:
        self.path, self._frames, self._ids, self.labels = path, frames, ids, labels
        self.size = (int(ids.shape[1]), int(ids.shape[2]))
        self.annotated: Sequence[int] = range(len(ids))

    def __len__(self) -> int:
        return len(self._frames)

    @cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Numbers of the objects."""
        return tuple(number for number in np.unique(self._ids).tolist() if number)

    def frame(self, at: int) -> PIL.Image:
        """Returns a frame."""
        check_frame(self, at, len(self))
        return PIL.fromarray(self._frames[at])

    def ids(self, at: int) -> Ids:
        """Returns the objects of a frame."""
        check_frame(self, at, len(self))
        return self._ids[at]


class _Path(NamedTuple):
    """How a digit moves: its ink, its colour, and at each frame its middle in pixels and its angle in degrees."""

    digit: PIL.Image
    label: int
    colour: np.ndarray
    middles: Float[np.ndarray, "t 2"]
    angles: Float[np.ndarray, " t"]


class _Maker:
    """Makes a clip of its number."""

    def __init__(self, split: str, digits: Digits, photos: list[PIL.Image]) -> None:
        self.split, self.digits, self.photos = split, digits, photos

    def __call__(self, index: int) -> MadeClip:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([2, SPLITS.index(self.split), index])))
        while True:
            ground = np.array(cut_photo(self.photos[rng.integers(len(self.photos))], SIDE, rng), dtype=np.float32)
            paths = [self._path(ground, rng) for _ in range(int(rng.integers(1, 4)))]
            post = self._post(rng) if rng.random() < 0.4 else None
            drawn = [_frame(ground, paths, post, at) for at in range(FRAMES)]
            ids = np.stack([one for _, one in drawn])
            if _all_well_seen(ids, len(paths)):
                break
        labels = {number: path.label for number, path in enumerate(paths, start=1)}
        frames = np.stack([np.rint(image).astype(np.uint8) for image, _ in drawn])
        return MadeClip(f"digit-videos/{self.split}[{index}]", frames, ids, labels)

    def _path(self, ground: np.ndarray, rng: np.random.Generator) -> _Path:
        """A digit that drifts through the picture; one in five begins outside of it."""
        place, side = int(rng.integers(len(self.digits))), int(rng.integers(20, 33))
        small: Any = self.digits[place].image
        digit = small.resize((side, side), PIL.Resampling.BICUBIC)
        start = rng.uniform(10, SIDE - 10, 2)
        if rng.random() < 0.2:
            start[0] = rng.choice([-side / 2, SIDE + side / 2])
        goal = rng.uniform(10, SIDE - 10, 2)
        step = (goal - start) / (FRAMES - 1) * rng.uniform(0.8, 1.6)
        middles = _reflected(start + step * np.arange(FRAMES)[:, None], start)
        angles = rng.uniform(-25, 25) + rng.uniform(-5, 5) * np.arange(FRAMES)
        colour = digit_colour(ground.mean(axis=(0, 1)), rng)
        return _Path(digit, int(self.digits.labels[place]), colour, middles, angles)

    def _post(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """Where a post begins, and its pixels."""
        width = int(rng.integers(8, 19))
        pixels = np.array(cut_photo(self.photos[rng.integers(len(self.photos))], SIDE, rng), dtype=np.float32)
        return int(rng.integers(12, SIDE - 12 - width)), pixels[:, :width]


def _reflected(middles: Float[np.ndarray, "t 2"], start: np.ndarray) -> Float[np.ndarray, "t 2"]:
    """A way that turns back at the edges, unless it comes in from outside."""
    low, high = 8.0, SIDE - 8.0
    away = np.abs((middles - low) % (2 * (high - low)) - (high - low))
    turned = high - away
    return np.where((start < 0) | (start > SIDE), middles, turned)


def _frame(
    ground: np.ndarray, paths: Sequence[_Path], post: tuple[int, np.ndarray] | None, at: int
) -> tuple[np.ndarray, Ids]:
    """One picture and the objects in it: later digits lie over earlier ones, the post over all."""
    image, ids = ground.copy(), np.zeros((SIDE, SIDE), dtype=np.uint8)
    for number, path in enumerate(paths, start=1):
        ink = _ink(path, at)
        image += (path.colour - image) * np.clip(ink / INK, 0, 1)[..., None] ** 2
        ids[ink >= INK] = number
    if post is not None:
        left, pixels = post
        image[:, left : left + pixels.shape[1]] = pixels
        ids[:, left : left + pixels.shape[1]] = 0
    for number in range(1, len(paths) + 1):  # a sliver at an edge or a hole is no object
        if np.count_nonzero(ids == number) < LEAST_AREA:
            ids[ids == number] = 0
    return image, ids


def _ink(path: _Path, at: int) -> Float[np.ndarray, "h w"]:
    """How much ink of a digit lies on each pixel, 0 to 1."""
    turn, (x, y), half = np.deg2rad(path.angles[at]), path.middles[at], path.digit.width / 2
    cos, sin = np.cos(turn), np.sin(turn)
    way_back = (cos, sin, half - cos * x - sin * y, -sin, cos, half + sin * x - cos * y)
    moved = path.digit.transform((SIDE, SIDE), PIL.Transform.AFFINE, way_back, PIL.Resampling.BICUBIC)
    return np.asarray(moved, dtype=np.float32) / 255


def _all_well_seen(ids: np.ndarray, count: int) -> bool:
    """Whether each digit is seen in half of the frames, and in one of the first four."""
    seen: Bool[np.ndarray, "n t"] = np.stack([(ids == number).any(axis=(1, 2)) for number in range(1, count + 1)])
    return bool((seen.sum(axis=1) >= FRAMES // 2).all() and seen[:, :4].any(axis=1).all())
