"""Checking clips: every frame and every mask opened, every fault named, and a picture of what is there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PIL

from nexus.data.clips.clip import Clip
from nexus.data.clips.id_images import colour_of
from nexus.data.dataset import DataError
from nexus.data.detection.scene import Fault
from nexus.data.images import ImageError, as_array, image_size

LOOKS = 4
"""Frames of a clip that a picture shows."""


class CheckedClips(NamedTuple):
    """What clips hold.

    Attributes:
        frames: How many, of all clips.
        objects: Likewise.
        faults: Each with its file.
        sizes: Height and width of each clip.
        labels: Classes of the objects, in each split.
    """

    frames: int
    objects: int
    faults: list[Fault]
    sizes: list[tuple[int, int]]
    labels: Mapping[str | None, np.ndarray]


def check_clips(splits: Mapping[str | None, Any], *, images: bool = True) -> CheckedClips:
    """Returns what the clips of each split hold and what is wrong with them.

    Args:
        splits: Data sets of clips by the names of their splits.
        images: Whether to open every frame and every mask.
    """
    frames, objects, faults, sizes = 0, 0, [], []
    labels: dict[str | None, np.ndarray] = {}
    for split, dataset in splits.items():
        seen: list[int] = []
        for place in range(len(dataset)):
            clip = dataset[place]
            frames += len(clip)
            found = _faults(clip) if images else []
            faults += found
            if not found:
                sizes.append(clip.size)
                objects += len(clip.object_ids)
                seen += list(clip.labels.values())
        labels[split] = np.array(seen, dtype=np.int64)
    return CheckedClips(frames, objects, faults, sizes, labels)


def _faults(clip: Clip) -> list[Fault]:
    found = []
    for at in range(len(clip)):
        try:
            size = image_size(clip.frame(at))
            if size != clip.size:
                found.append(Fault(clip.path, f"frame {at}", f"it has another size, {size}, than the first frame."))
            if at in clip.annotated:
                clip.ids(at)
        except (ImageError, DataError) as error:
            found.append(Fault(clip.path, f"frame {at}", str(error)))
            if at == 0:
                break
    if not found and not clip.object_ids:
        found.append(Fault(clip.path, "", "not one mask of it shows an object."))
    return found


def looks_of(clip: Clip, count: int = LOOKS) -> list[tuple[PIL.Image, str]]:
    """Returns annotated frames spread over a clip, with the objects coloured, and a caption for each."""
    places = [clip.annotated[round(at)] for at in np.linspace(0, len(clip.annotated) - 1, count)]
    return [(shaded(clip.frame(at), clip.ids(at)), f"frame {at} of {len(clip)}") for at in places]


def shaded(frame: Any, ids: np.ndarray) -> PIL.Image:
    """Returns a frame on which each object has its colour."""
    pixels = as_array(frame)
    pixels = pixels if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 1) * 255)
    pixels = np.broadcast_to(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1], (*ids.shape, 3))
    colours = np.array([colour_of(number) for number in range(256)])[ids]
    mixed = np.where(ids[..., None] > 0, pixels * 0.45 + colours * 0.55, pixels)
    return PIL.fromarray(mixed.astype(np.uint8))
