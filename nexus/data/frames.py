"""Frames of a video by their numbers, whatever the video is: a file, a folder of pictures, arrays, or a live stream.

A frame is decoded when it is asked for, and none is kept.

Dims: t frames, c channels, h w pixels.
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nexus.data.images import EXTENSIONS, Image, ImageError, image_size, load_image
from nexus.data.places import children
from nexus.data.video import VIDEO_EXTENSIONS, pyav, read_frames

MOST_FRAMES = 10_000_000
"""Of a file: 46 hours at 60 frames a second."""


class Frames:
    """Frames that can be had by number, from 0, and in order.

    Attributes:
        name: What messages call the video.
    """

    def __init__(self, name: str, count: int, read: Callable[[int], Image]) -> None:
        self.name, self._count, self._read = name, count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Image:
        """Returns a frame.

        Raises:
            IndexError: There is none of this number.
            ImageError: It cannot be read; the message names the file.
        """
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < self._count:
            raise IndexError(f"{self.name} has no frame {number!r}; its {self._count} frames are numbered from 0.")
        return self._read(int(number))

    def __iter__(self) -> Iterator[Image]:
        return (self._read(number) for number in range(self._count))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, of the first frame."""
        return image_size(self[0])

    def mapped(self, transform: Callable[[Image], Tensor]) -> "Mapped":
        """Returns the frames as the input of a model, each made when it is asked for."""
        return Mapped(self, transform)


class Mapped:
    """Frames as the input of a model: `VideoSession(model, frames.size, frames.mapped(transform))`."""

    def __init__(self, frames: Frames, transform: Callable[[Image], Tensor]) -> None:
        self.frames, self.transform = frames, transform

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> Tensor:
        """Returns a frame."""
        return self.transform(self.frames[number])


def open_frames(source: Any) -> Frames:
    """Returns the frames of a video that can be read at any place.

    Args:
        source: A video file; a folder of pictures, in the order of their names; an array (t, h, w, c), a tensor
            (t, c, h, w), or a sequence of images as `load_image` takes them.

    Raises:
        ImageError: There is no frame, or the file is no video.
        ValueError: The source is something else. One that can only be read in order, as a camera, is given to
            `Predictor.stream` as it is.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return _of_folder(path)
        return _of_file(path)
    if isinstance(source, np.ndarray | Tensor) and source.ndim != 4:
        layout = "(t, c, h, w)" if isinstance(source, Tensor) else "(t, h, w, c)"
        raise ValueError(f"The frames have the shape {tuple(source.shape)}; they are {layout}.")
    if not isinstance(source, np.ndarray | Tensor | Sequence):
        can = "Give it to Predictor.stream, which reads in order." if isinstance(source, Iterable) else ""
        raise ValueError(
            f"Frames of a {type(source).__name__} cannot be had by number; give a file, a folder, an array or a list."
            f" {can}".rstrip()
        )
    if not len(source):
        raise ImageError("The video has no frame.")
    return Frames("frames", len(source), lambda number: load_image(source[number], name=f"frames[{number}]"))


def _of_folder(folder: Path) -> Frames:
    files = [file for file in children(folder) if file.suffix.lower() in EXTENSIONS]
    if not files:
        raise ImageError(f"{folder} holds no picture.")
    return Frames(str(folder), len(files), lambda number: load_image(files[number]))


def _of_file(path: Path) -> Frames:
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        raise ImageError(f"{path} is no video, whose names end in {', '.join(sorted(VIDEO_EXTENSIONS))}.")
    times = _times(path)
    return Frames(str(path), len(times), _Reader(path, times).read)


def _times(path: Path) -> list[int]:
    """When each frame is shown, in units of the file, rising. Nothing is decoded for it."""
    next(read_frames(path), None)  # says what is wrong with a file that is none
    av = pyav()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            times = [packet.pts for packet in container.demux(stream) if packet.pts is not None and packet.size]
    except av.FFmpegError as error:
        raise ImageError(f"{path} ends early or is damaged ({error.strerror}); copy or convert it again.") from error
    if not 0 < len(times) <= MOST_FRAMES:
        raise ImageError(f"{path} has {len(times)} frames that say when they are shown; convert it.")
    return sorted(times)


class _Reader:
    """Reads any frame of a file: from the key frame before it on, or further from where it stands."""

    def __init__(self, path: Path, times: Sequence[int]) -> None:
        self.path, self.times = path, times
        self.coming: Iterator[Any] | None = None
        self.next = 0

    def read(self, number: int) -> Image:
        """Returns a frame."""
        if self.coming is None or not self.next <= number <= self.next + 8:
            self.coming = self._from(number)
        for found, image in self.coming:
            self.next = found + 1
            if found == number:
                return image
        self.coming = None
        raise ImageError(
            f"{self.path} ends early: it says that it has {len(self.times)} frames, and frame {number} never comes;"
            " copy or convert it again."
        )

    def _from(self, number: int) -> Iterator[tuple[int, Image]]:
        av = pyav()
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                if number:
                    container.seek(self.times[number], stream=stream, backward=True)
                for frame in container.decode(stream):
                    place = bisect.bisect_left(self.times, frame.pts or 0)
                    if place < number:
                        continue
                    image = frame.to_image()
                    yield place, image.rotate(frame.rotation, expand=True) if frame.rotation else image
        except av.FFmpegError as error:
            raise ImageError(
                f"{self.path} cannot be decoded at frame {number} ({error.strerror}); copy or convert it again."
            ) from error
