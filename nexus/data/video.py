"""Videos: frames out of a file, pictures into one. PyAV (the extra "video") brings the decoders of FFmpeg.

Frames come one by one, upright, as they are shown; a broken frame ends the reading with an error that names it.
"""

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexus.core.files import write_whole
from nexus.data.images import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEO_EXTENSIONS = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"])


def read_frames(path: str | Path, *, every: int = 1) -> "Iterator[Image]":
    """Yields frames of a video as images of mode "RGB", decoded as they are asked for.

    Args:
        path: The file.
        every: 1 yields all frames, 5 each fifth, beginning with the first.

    Raises:
        ImageError: The file is missing, holds no video, or is damaged.
        ImportError: PyAV is not installed.
    """
    if every < 1:
        raise ValueError(f"every is {every}; it must be at least 1.")
    av = pyav()
    number = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} holds no video, only sound or text.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    image = frame.to_image()
                    yield image.rotate(frame.rotation, expand=True) if frame.rotation else image
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist; check the path.") from error
    except (av.FFmpegError, UnicodeDecodeError) as error:  # the latter of a title or name in it
        reason = getattr(error, "strerror", None) or "its texts are not in UTF-8"
        raise ImageError(f"{path} cannot be decoded after frame {number} ({reason}); convert it.") from error


def frame_rate(path: str | Path) -> float:
    """Returns frames per second; 25 where the file does not say."""
    av = pyav()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return float(stream.average_rate or 25)
    except (OSError, IndexError, UnicodeDecodeError, av.FFmpegError) as error:
        raise ImageError(f"{path} is not a video that can be read; check the path.") from error


def write_frames(path: str | Path, pictures: "Iterable[Image]", *, rate: float = 25.0) -> Path:
    """Writes pictures of one size as a video, H.264 where its encoder is there; returns the path.

    Players need even sides, so the last row or column of an odd picture is left out.

    Raises:
        ValueError: There is no picture, or the ending names no kind of video.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        raise ValueError(f"{path} ends in {path.suffix!r}; a video ends in {', '.join(sorted(VIDEO_EXTENSIONS))}.")
    coming = iter(pictures)
    first = next(coming, None)
    if first is None:
        raise ValueError(f"There is no picture to write to {path}.")
    av = pyav()
    write_whole(path, lambda part: _encode(av, part, path.suffix, itertools.chain([first], coming), first.size, rate))
    return path


def _encode(av: Any, part: Path, suffix: str, pictures: "Iterable[Image]", size: tuple[int, int], rate: float) -> None:
    kind = {".mkv": "matroska", ".m4v": "mp4", ".mpg": "mpeg", ".mpeg": "mpeg"}.get(suffix.lower(), suffix.lower()[1:])
    codecs = {"webm": ("libvpx-vp9",), "mpeg": ("mpeg2video",)}.get(kind, ("libx264", "mpeg4"))
    codec = next((name for name in codecs if name in av.codecs_available), codecs[-1])
    with av.open(str(part), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height = size[0] // 2 * 2, size[1] // 2 * 2
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            if picture.size != size:
                raise ValueError(f"A picture is {picture.size} and the first was {size}; a video has one size.")
            cut = picture.convert("RGB").crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_image(cut)))
        container.mux(stream.encode())


def pyav() -> Any:
    """Returns PyAV.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Videos need PyAV: pip install 'nexus-vision[video]'.") from error
    return av
