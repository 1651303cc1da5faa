"""Where a YOLO data set keeps its classes, images and labels: the layouts that public tools write.

- `data.yaml` (or the one `.yaml` file with `names`) names folders, lists of files, or several of these for `train`,
  `val` and `test`. They are relative to its `path`, or to its own folder; `../train/images` in it means
  `train/images`, where nothing lies above.
- Without it the classes stand in `classes.txt` or `obj.names`, and folders tell the splits: `images/train`,
  `train/images`, `train`.
- An image's labels have its name with `.txt`, where `labels` takes the place of `images` in the path, or beside it.

Nothing outside of the folder is read; only a settings file that the user names itself may put its `path` elsewhere.
A `path` of another machine, which leads to nothing here, is passed over with a warning.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from nexus.data.dataset import DataError
from nexus.data.detection.values import MAX_KEYPOINTS, class_name, whole_text
from nexus.data.documents import read_settings, read_text
from nexus.data.images import EXTENSIONS
from nexus.data.places import SPLITS, children, inside, split_folders, split_of, walk

_log = logging.getLogger("nexus")

SETTINGS = "data.yaml"
CLASS_LISTS = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")


@dataclass(frozen=True)
class YoloFolder:
    """A data set as its settings describe it.

    Attributes:
        root: What all its files lie below.
        names: Of the classes.
        images: Files of each split; of the split None where nothing says which is which.
        keypoint_names: "point0", ... where the settings name none.
        mirror: For each keypoint the one that it becomes in a mirror (`flip_idx`); empty where nothing says it.
        skeleton: Pairs of keypoints that a picture joins.
        has_visibility: Whether keypoints are x, y, v; else they are x, y, and all are visible.
    """

    root: Path
    names: tuple[str, ...]
    images: Mapping[str | None, tuple[Path, ...]]
    keypoint_names: tuple[str, ...] = ()
    mirror: tuple[int, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    has_visibility: bool = True


def open_yolo(path: Path) -> YoloFolder:
    """Returns what lies at a path: a folder, or a settings file.

    Raises:
        DataError: Its settings are wrong or lead to nothing; the message names the file and the key.
    """
    settings = path if path.is_file() else _settings_file(path)
    if settings is None:
        folder = _Places(path, path, path)
        return YoloFolder(path, _listed_names(path), folder.by_layout())
    content = read_settings(settings)
    if not isinstance(content, dict):
        raise DataError(f"{settings} must hold `names`, the names of the classes; it holds no keys.")
    fields = _Fields(settings, content)
    fields.check_keys()
    names, keypoints = fields.names(), fields.keypoints()
    places = _places(settings, content.get("path"), named=path.is_file())
    mirror, skeleton = fields.mirror(len(keypoints)), fields.skeleton(len(keypoints))
    images = places.by_settings(content)
    return YoloFolder(places.root, names, images, keypoints, mirror, skeleton, fields.has_visibility())


def label_file(image: Path, root: Path) -> Path:
    """Where the labels of an image lie."""
    parts = list(image.relative_to(root).parts)
    beside = image.with_suffix(".txt")
    folders = [place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if not folders:
        labels = image.parent / "labels" / beside.name
        return labels if labels.is_file() and not beside.is_file() else beside
    parts[folders[-1]] = "labels"
    apart = (root / Path(*parts)).with_suffix(".txt")
    return beside if beside.is_file() and not apart.is_file() else apart


def _settings_file(root: Path) -> Path | None:
    found = [child for child in children(root) if child.suffix.lower() in (".yaml", ".yml") and child.is_file()]
    for name in (SETTINGS, "data.yml", "dataset.yaml", "dataset.yml"):
        if root / name in found:
            return root / name
    named = [file for file in found if _has_names(file)]
    if len(named) > 1:
        raise DataError(f"{named[0]} and {named[1]} both name classes; name one of them, as in yolo:{named[0]}.")
    return named[0] if named else None


def _has_names(file: Path) -> bool:
    with contextlib.suppress(DataError):
        content = read_settings(file)
        return isinstance(content, dict) and "names" in content
    return False


def _listed_names(root: Path) -> tuple[str, ...]:
    places = [root, root / "labels", *(child for child in children(root) if child.is_dir())]
    file = next((place / name for place in places for name in CLASS_LISTS if (place / name).is_file()), None)
    if file is None:
        raise DataError(f"{root / SETTINGS} does not exist; it must hold `names`, the names of the classes.")
    return _checked_names(file, [line for line in read_text(file).splitlines() if line.strip()])


def _checked_names(file: Path, values: Sequence[Any]) -> tuple[str, ...]:
    names: list[str] = []
    for place, value in enumerate(values):
        try:
            name = class_name(value)
        except ValueError as error:
            raise DataError(f"{file}: names: class {place} is {error}") from None
        names.append(name)
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{file}: names has {twice!r} twice; names of classes must differ.")
    return tuple(names)


class _Fields:
    """The keys of a settings file, whose values are the texts that stand there."""

    def __init__(self, file: Path, content: Mapping[str, Any]) -> None:
        self.file, self.content = file, content

    def refuse(self, key: str, rule: str) -> DataError:
        said = f"is {str(self.content[key])[:60]}" if key in self.content else "is missing"
        return DataError(f"{self.file}: {key} {said}; {rule}.")

    def check_keys(self) -> None:
        """Refuses a key that is a slip of the pen for a split or the names, which would be passed over in silence."""
        for key in map(str, self.content):
            meant = get_close_matches(key.lower(), (*SPLITS, "names"), n=1, cutoff=0.7)
            if meant and meant[0] not in self.content and split_of(key) is None:
                raise DataError(f"{self.file}: there is no key {key[:60]!r}; did you mean {meant[0]!r}?")

    def names(self) -> tuple[str, ...]:
        names = self.content.get("names")
        if isinstance(names, dict):
            places = [whole_text(key) for key in names]
            if None in places or sorted(map(int, names)) != list(range(len(names))):
                raise self.refuse("names", "it must list the classes, or number them from 0 on")
            names = [value for _, value in sorted(names.items(), key=lambda item: int(item[0]))]
        if not isinstance(names, list) or not names:
            raise self.refuse("names", "it must list the classes, or number them from 0 on")
        count = self.content.get("nc")
        if count is not None and whole_text(count) != len(names):
            raise self.refuse("nc", f"names has {len(names)} classes: make them agree")
        return _checked_names(self.file, names)

    def keypoints(self) -> tuple[str, ...]:
        shape = self.content.get("kpt_shape")
        if shape is None:
            return ()
        sides = [whole_text(side) for side in shape] if isinstance(shape, list) else []
        if len(sides) != 2 or sides[0] is None or sides[1] not in (2, 3) or sides[0] > MAX_KEYPOINTS:
            raise self.refuse("kpt_shape", f"it must be [number of keypoints, 3 or 2], at most {MAX_KEYPOINTS}")
        listed = self.content.get("kpt_names")
        lists = list(listed.values()) if isinstance(listed, dict) else [listed] if listed else []
        if not lists:
            return tuple(f"point{place}" for place in range(sides[0]))
        if any(one != lists[0] for one in lists) or not isinstance(lists[0], list) or len(lists[0]) != sides[0]:
            raise self.refuse("kpt_names", f"it must list the {sides[0]} keypoints, the same for every class")
        return _checked_names(self.file, lists[0])

    def has_visibility(self) -> bool:
        """Whether each keypoint has a third number; `keypoints` has checked the shape."""
        shape = self.content.get("kpt_shape")
        return shape is None or whole_text(shape[1]) == 3

    def mirror(self, count: int) -> tuple[int, ...]:
        value = self.content.get("flip_idx")
        places = [whole_text(one) for one in value] if isinstance(value, list) else []
        known = [place for place in places if place is not None and place < count]
        paired = len(known) == len(places) == count and all(known[known[place]] == place for place in range(count))
        if value and not paired:
            raise self.refuse("flip_idx", f"it must give each of the {count} keypoints its mirror image, in pairs")
        return tuple(known)

    def skeleton(self, count: int) -> tuple[tuple[int, int], ...]:
        rows = self.content.get("skeleton") or []
        pairs = [[whole_text(one) for one in row] if isinstance(row, list) else [] for row in rows]
        if not all(len(pair) == 2 and all(one is not None and one < count for one in pair) for pair in pairs):
            raise self.refuse("skeleton", "it must list pairs of keypoints, which count from 0")
        return tuple((int(a or 0), int(b or 0)) for a, b in pairs)


def _places(settings: Path, path: Any, named: bool) -> "_Places":
    """Where names in a settings file start from, and what they must stay below."""
    home = settings.parent
    if not isinstance(path, str) or not path.strip():
        return _Places(home.parent if named and not _holds_data(home) else home, home, settings)
    elsewhere = Path(os.path.expanduser(path)) if named else None
    if elsewhere is not None and (home / elsewhere).is_dir():
        return _Places(home / elsewhere, home / elsewhere, settings)
    with contextlib.suppress(ValueError):
        base = inside(home, path)
        if base.is_dir():
            return _Places(home, base, settings)
    if not named and _is_folder(home / os.path.expanduser(path)):
        raise DataError(
            f"{settings}: path is {path[:200]!r}, which leads outside of {home}; to read what lies there name the"
            f" file, yolo:{settings}, or remove path to read {home}."
        )
    _say_once(f"{settings}: path is {path[:200]!r}, and there is no such folder; its own folder is read.")
    return _Places(home, home, settings)


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # names that are too long, or hold a NUL
        return path.is_dir()
    return False


@cache
def _say_once(text: str) -> None:
    _log.warning(text)


def _holds_data(folder: Path) -> bool:
    """Whether a folder itself seems to hold a data set."""
    folders = [child.name for child in children(folder) if child.is_dir()]
    return any(name.lower() == "images" or split_of(name) for name in folders)


@dataclass(frozen=True)
class _Places:
    """Finds the images of splits below `root`; names are relative to `base`, and `said` is what names them."""

    root: Path
    base: Path
    said: Path

    def by_settings(self, content: Mapping[str, Any]) -> dict[str | None, tuple[Path, ...]]:
        found: dict[str | None, tuple[Path, ...]] = {}
        for key, value in content.items():
            split = split_of(key)
            if split is None or value in (None, "", []):
                continue
            if split in found:
                raise DataError(f"{self.said}: two keys mean the split {split!r}; keep one of them.")
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) for entry in entries):
                raise DataError(f"{self.said}: {key} must name a folder, a list of files, or several of these.")
            files = [file for entry in entries for file in self._images(key, entry)]
            found[split] = tuple(dict.fromkeys(files))
        if not found:
            return self.by_layout()
        for split, folder in self._split_folders(self.root / "images").items():
            found.setdefault(split, tuple(walk(folder)))
        return found

    def by_layout(self) -> dict[str | None, tuple[Path, ...]]:
        for folder in (self.base / "images", self.base):
            found = {split: tuple(walk(place)) for split, place in self._split_folders(folder).items()}
            if any(found.values()):
                return {split: files for split, files in found.items() if files}
        lists = {split_of(file.stem): file for file in children(self.base) if file.suffix.lower() == ".txt"}
        listed = {split: file for split, file in lists.items() if split is not None}
        if listed:
            return {split: tuple(self._list(file)) for split, file in listed.items()}
        folder = self.base / "images" if (self.base / "images").is_dir() else self.base
        files = tuple(walk(folder))
        if not files:
            raise DataError(f"There is no image in {folder}; a YOLO data set has images/ and labels/ side by side.")
        return {None: files}

    def _split_folders(self, folder: Path) -> dict[str, Path]:
        try:
            return split_folders(folder)
        except ValueError as error:
            raise DataError(str(error)) from None

    def _images(self, key: str, entry: str) -> Iterator[Path]:
        place = self._resolved(entry)
        if place is None:
            raise DataError(
                f"{self.said}: {key} is {entry[:200]!r}; there is no such folder or list below {self.root}."
                + (self._same_here(entry) or f" Correct it, or move {self.said.name} into the data set's folder.")
            )
        if place.is_dir():
            files = list(walk(place))
            if not files:
                raise DataError(f"{self.said}: {key} is {entry[:200]!r}, and {place} has no image; add some.")
            yield from files
        elif place.suffix.lower() == ".txt":
            yield from self._list(place)
        else:
            yield place

    def _resolved(self, entry: str) -> Path | None:
        above = entry.replace("\\", "/")
        while above.startswith("../"):
            above = above[3:]
        for base in (self.base, self.root):
            for name in dict.fromkeys((entry, above)):
                with contextlib.suppress(ValueError):
                    place = inside(self.root, name, base)
                    if place.exists():
                        return place
        return None

    def _same_here(self, name: str, start: Path | None = None) -> str:
        """Says of a path of another machine which of its ends is there, and what to write."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for place in range(len(parts)):
            end = "/".join(parts[place:])
            with contextlib.suppress(ValueError):
                if inside(self.root, end, start or self.base).exists():
                    return f" Write {end!r}, which is there."
        return ""

    def _list(self, file: Path) -> Iterator[Path]:
        """The images that the lines of a text name, relative to it or to the data set."""
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            name = line.strip()
            if not name:
                continue
            place = None
            for start in (file.parent, self.base, self.root):
                for one in (name, name.removeprefix("data/")):
                    with contextlib.suppress(ValueError):
                        there = inside(self.root, one, start)
                        place = place or (there if there.is_file() else None)
            if place is None or place.suffix.lower() not in EXTENSIONS:
                raise DataError(
                    f"{file}, line {number}: there is no image {name[:200]!r} below {self.root}."
                    + (self._same_here(name, file.parent) or " Correct the line, or remove it.")
                )
            yield place
