"""Clips in folders, as DAVIS and YouTube-VOS keep them.

`JPEGImages/SEQUENCE/*.jpg` are the frames, `Annotations/SEQUENCE/*.png` the numbers of the objects in those that are
annotated; both may have a folder for the resolution between (`480p`). Which sequences make a split says
`ImageSets/2017/train.txt` (DAVIS), or a folder for each split (`train/JPEGImages`, YouTube-VOS), whose `meta.json`
names the class of each object. Where nothing tells splits apart, about one sequence in five is held out.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nexus.data.clips.clip import Clip, Ids, check_frame
from nexus.data.clips.id_images import read_ids
from nexus.data.dataset import DataError
from nexus.data.documents import read_json, read_text
from nexus.data.holding_out import held_out
from nexus.data.images import EXTENSIONS, Image, file_size, load_image
from nexus.data.places import children, inside, split_folders, what_it_is

FRAMES, MASKS, SETS, META = "JPEGImages", "Annotations", "ImageSets", "meta.json"
USUAL = "480p"
"""The resolution that DAVIS is measured at."""
YEARS = ("2017", "2016", "")
"""Folders of lists, the first that is there."""
MOST_FRAMES = 100_000
"""Of a sequence: an hour of video."""


class FolderClip:
    """A sequence on the disk, see `Clip`."""

    def __init__(
        self, frames: Sequence[Path], masks: Mapping[int, Path], objects: Mapping[int, str], labels: Mapping[int, int]
    ) -> None:
        self.frames, self.masks, self.objects, self.labels = frames, masks, objects, labels
        self.path = str(frames[0].parent)
        self.annotated: Sequence[int] = sorted(masks)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, of the first frame."""
        return file_size(self.frames[0])

    @cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Numbers of the objects: those that the list of objects names, or else all that any mask has."""
        if self.objects:
            return tuple(sorted(self.objects))
        return tuple(sorted({int(number) for at in self.annotated for number in np.unique(self.ids(at)) if number}))

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, at: int) -> Image:
        """Returns a frame."""
        check_frame(self, at, len(self))
        return load_image(self.frames[at])

    def ids(self, at: int) -> Ids:
        """Returns the objects of an annotated frame.

        Raises:
            ValueError: It is not annotated, or its file is of no use.
        """
        check_frame(self, at, len(self))
        if at not in self.masks:
            raise DataError(f"{self.frames[at]} is not annotated; see `annotated`.")
        ids = read_ids(self.masks[at], self.size)
        unknown = sorted(set(np.unique(ids).tolist()) - {0} - set(self.objects)) if self.objects else []
        if unknown:
            raise DataError(f"{self.masks[at]} has the object {unknown[0]}, which {META} does not name.")
        return ids


class ClipFolder:
    """The clips of one split of a folder."""

    in_channels = 3

    def __init__(self, path: Path, split: str = "train") -> None:
        """Looks for the frames and masks; none is opened.

        Raises:
            DataError: There are none, the split is not there, or names do not fit each other; the file is named.
        """
        root, names = _sequences(path, split)
        self.name, self.split, self.class_names = f"clips:{path}", split, _class_names(path)
        meta = _meta(root)
        self.clips = [_clip(root, name, meta, self.class_names) for name in names]

    @property
    def num_frames(self) -> Sequence[int]:
        """Of each clip."""
        return [len(clip) for clip in self.clips]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        """Returns a clip."""
        return self.clips[index]

    def path(self, index: int) -> str:
        """Returns the folder of a clip's frames."""
        return self.clips[index].path


def is_clip_folder(path: Path) -> bool:
    """Returns whether a folder seems to hold clips: sequences of frames with masks as PNG."""
    roots = [path, *(child for child in children(path) if child.is_dir())] if path.is_dir() else []
    return any(_holds_masks(root / MASKS) and (root / FRAMES).is_dir() for root in roots)


def _holds_masks(folder: Path) -> bool:
    files = (file for below in children(folder) for file in (below, *children(below)))
    return any(file.suffix.lower() == ".png" or any(_of(file, [".png"])) for file in files)


def _sequences(path: Path, split: str) -> tuple[Path, list[str]]:
    """The folder that holds the frames and masks of a split, and the names of its sequences."""
    if not path.is_dir():
        raise DataError(f"{path} is no folder; name the one that holds {FRAMES} and {MASKS}.")
    if not (path / FRAMES).is_dir():
        return _of_split_folder(path, split)
    there = [child.name for child in children(_resolved(path / FRAMES)) if child.is_dir()]
    if not there:
        raise DataError(f"{path / FRAMES} holds no folder of frames.")
    lists = {name: file for year in reversed(YEARS) for name, file in _lists(path / SETS / year).items()}
    if lists:
        if split not in lists:
            raise DataError(f"{path} has no list {split}.txt of sequences; there are {', '.join(sorted(lists))}.")
        return path, _listed(lists[split], there)
    if split == "test":
        raise DataError(f"{path} has no split 'test'; nothing tells splits apart, so that train and val are drawn.")
    return path, [name for name, held in zip(there, held_out(there)) if held == (split == "val")]


def _of_split_folder(path: Path, split: str) -> tuple[Path, list[str]]:
    folders = {name: folder for name, folder in split_folders(path).items() if (folder / FRAMES).is_dir()}
    if not folders:
        raise DataError(f"{path} holds neither {FRAMES} nor folders such as train/{FRAMES}.")
    if split not in folders:
        raise DataError(f"{path} has no folder for {split!r}; there are {', '.join(folders)}.")
    return folders[split], [child.name for child in children(_resolved(folders[split] / FRAMES)) if child.is_dir()]


def _lists(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in children(folder) if file.suffix == ".txt"}


def _listed(file: Path, there: Sequence[str]) -> list[str]:
    names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    for number, name in enumerate(names, start=1):
        if name not in there:
            raise DataError(f"{file}, line {number}: there is no sequence {name[:80]!r} in {FRAMES}.")
    if not names:
        raise DataError(f"{file} lists no sequence.")
    return list(dict.fromkeys(names))


def _resolved(folder: Path) -> Path:
    """The folder that holds the sequences: the one given, or that of a resolution in it."""
    below = [child for child in children(folder) if child.is_dir()]
    resolutions = [child for child in below if any(one.is_dir() for one in children(child))]
    if not resolutions:
        return folder
    usual = [child for child in resolutions if child.name == USUAL]
    if len(below) > 1 and not usual:
        raise DataError(f"{folder} holds {below[0].name} and {below[1].name}; keep one resolution, or call it {USUAL}.")
    return (usual or resolutions)[0]


def _clip(root: Path, name: str, meta: Mapping[str, Any], class_names: Sequence[str]) -> FolderClip:
    folder = inside(root, name, _resolved(root / FRAMES))
    frames = _files(folder, EXTENSIONS)
    if not 0 < len(frames) <= MOST_FRAMES:
        raise DataError(f"{folder} holds {len(frames)} frames; a clip has from 1 to {MOST_FRAMES:,}.")
    places: dict[str, int] = {}
    for at, frame in enumerate(frames):
        if frame.stem in places:
            raise DataError(f"{frame} and {frames[places[frame.stem]].name} are the same frame; remove one of them.")
        places[frame.stem] = at
    masks: dict[int, Path] = {}
    for file in _files(_resolved(root / MASKS) / name, [".png"]):
        if file.stem not in places:
            raise DataError(f"{file} is the mask of a frame that {folder} does not have.")
        masks[places[file.stem]] = file
    if not masks:
        raise DataError(f"{_resolved(root / MASKS) / name} holds no mask of the sequence {name!r}.")
    objects = _objects(root / META, name, meta)
    return FolderClip(frames, masks, objects, {number: class_names.index(one) for number, one in objects.items()})


def _files(folder: Path, endings: Sequence[str] | frozenset[str]) -> list[Path]:
    """The files of a folder in order, all of which must end so."""
    for file in children(folder):
        if file.suffix.lower() not in endings or (problem := what_it_is(file)) is not None:
            told = (
                problem if file.suffix.lower() in endings else f"is none of {' '.join(sorted(endings))}; move it away"
            )
            raise DataError(f"{file} {told}.")
    return children(folder)


def _of(folder: Path, endings: Sequence[str]) -> list[Path]:
    return [file for file in children(folder) if file.suffix.lower() in endings]


def _meta(root: Path) -> Mapping[str, Any]:
    """What `meta.json` says of each sequence; nothing where there is none."""
    file = root / META
    if not file.exists():
        return {}
    content = read_json(file)
    videos = content.get("videos") if isinstance(content, Mapping) else None
    if not isinstance(videos, Mapping):
        raise DataError(f"{file} has no mapping 'videos' from sequences to their objects.")
    return videos


def _objects(file: Path, name: str, meta: Mapping[str, Any]) -> dict[int, str]:
    """By number of an object of a sequence its class."""
    if not meta:
        return {}
    one = meta.get(name)
    objects = one.get("objects") if isinstance(one, Mapping) else None
    if not isinstance(objects, Mapping) or not objects:
        raise DataError(f"{file} has no 'objects' of the sequence {name[:80]!r}.")
    found: dict[int, str] = {}
    for key, value in objects.items():
        category = value.get("category") if isinstance(value, Mapping) else None
        if not (key.isdecimal() and key.isascii() and len(key) <= 3 and 1 <= int(key) <= 255):
            raise DataError(f"{file}: {name!r} has the object {key[:40]!r}; objects are numbered from 1 to 255.")
        if not isinstance(category, str) or not category.strip():
            raise DataError(f"{file}: the object {key} of {name!r} has no 'category'.")
        found[int(key)] = category
    return found


def _class_names(path: Path) -> tuple[str, ...]:
    """The classes of all splits, in alphabetical order."""
    roots = [path] if (path / FRAMES).is_dir() else list(split_folders(path).values())
    found: set[str] = set()
    for root in roots:
        meta = _meta(root)
        for name in meta:
            found |= set(_objects(root / META, name, meta).values())
    return tuple(sorted(found))
