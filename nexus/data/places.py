"""Where the files of a data set lie: walking folders, the names of splits, and names that a file gives for another.

Hidden files and what operating systems leave behind are never data. A name that a file gives is looked up below the
data set's folder and nowhere else.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath

from nexus.data.images import EXTENSIONS

SPLITS = ("train", "val", "test")
SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What people call splits, in lower case; a year may follow, as in train2017."""

LEFT_BEHIND = frozenset(["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"])


LONGEST_NAME, LONGEST_PATH = 255, 3000
"""Bytes of a name, and characters of a path, that every file system takes."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is never data: `.git`, `._a.jpg`, `.ipynb_checkpoints`, `__MACOSX`."""
    return name.startswith(".") or name in LEFT_BEHIND


def children(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without what is hidden; nothing where there is no folder."""
    return sorted(child for child in folder.iterdir() if not is_hidden(child.name)) if folder.is_dir() else []


def walk(folder: Path, endings: Iterable[str] = EXTENSIONS) -> Iterator[Path]:
    """Gives the files below a folder whose names end so, sorted. A folder that links lead to again is read once."""
    wanted, seen = frozenset(endings), set()
    for place, folders, files in os.walk(folder, followlinks=True):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in wanted and not is_hidden(name):
                yield Path(place, name)


def split_of(name: str) -> str | None:
    """The split that a folder's or file's name means ("Training", "valid", "train2017"), or None."""
    return SPELLINGS.get(re.sub(r"[ _-]?\d{4}$", "", name.lower()))


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of a root that are called as splits are.

    Raises:
        ValueError: Two of them mean the same split.
    """
    found: dict[str, Path] = {}
    for child in children(root):
        split = split_of(child.name)
        if split is None or not child.is_dir():
            continue
        if split in found:
            raise ValueError(f"{found[split]} and {child} both mean {split!r}; remove or rename one of them.")
        found[split] = child
    return found


def inside(root: Path, name: str, folder: Path | None = None) -> Path:
    """The place below `root` that a name in a file means.

    Args:
        root: The data set's folder.
        name: As the file has it, with slashes of either kind; Unicode may be composed otherwise than on the disk.
        folder: Where a relative name starts from; None is the root.

    Raises:
        ValueError: The name leads outside of the root, or is none.
    """
    folder = folder or root
    parts = name.encode("utf-8", "surrogatepass").replace(b"\\", b"/").split(b"/")
    if not name.strip() or "\0" in name or max(map(len, parts)) > LONGEST_NAME or len(name) > LONGEST_PATH:
        raise ValueError(f"{name[:80]!r} is no name of a file.")
    place = _below(root, folder, name)
    if place is None and "\\" in name:
        place = _below(root, folder, name.replace("\\", "/"))
    if place is None or PureWindowsPath(name).drive:
        raise ValueError(f"{name!r} leads outside of {root}; write it relative to {folder}.")
    for other in (name.replace("\\", "/"), *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))):
        if os.path.lexists(place):
            break
        place = _below(root, folder, other) or place
    return place


def _below(root: Path, folder: Path, name: str) -> Path | None:
    base, there = os.path.abspath(root), os.path.abspath(folder / name)
    if not Path(there).is_relative_to(base):
        return None
    return root / os.path.relpath(there, base)


def is_within(path: Path, root: Path) -> bool:
    """Whether a file lies in a folder when all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def what_it_is(path: Path) -> str | None:
    """None for a regular file; else what stands there instead, which must never be opened: a pipe would not answer."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "does not exist; check the path"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error}); check the path and its permissions"
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file; name a regular file"
