"""What the data of a run was, so that a resumed run notices when it is no longer the same.

Of each split: the names of the classes; of each image its name, its size in bytes and what is said about it (label,
objects, captions); and the content of a sample of the images, of all where they are few.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.documents import FileError, Limits, parse_json
from nexus.data.dataset import Dataset
from nexus.data.facets import class_names_of
from nexus.data.images import as_array

Fingerprint = dict[str, Any]
"""Of one split: `classes`, `names`, `sizes`, `said`, and `content` by position."""

MOST_SIZES = 100_000
"""Files whose size is asked for; of a larger set, a sample that is spread evenly."""
FEW, FEW_BYTES = 2000, 64 << 20
"""Up to so many files, with so many bytes together, are read whole."""
SAMPLE, SAMPLE_BYTES = 500, 4096
"""Of more or larger ones, so many are read, and so much of each."""
DECODED = 16
"""Images that are no files are decoded to look at them; so few."""
UNPACKED = Limits(size=1 << 30, depth=16, count=100_000_000)
"""Of the fingerprints of a run."""
UNKNOWN = -1
_SHOWN = 3


def fingerprint(dataset: Dataset) -> Fingerprint:
    """Returns what a data set is. Takes less than a second for 100,000 files."""
    tell = getattr(dataset, "path", None)
    paths = [str(tell(index)) for index in range(len(dataset))] if tell is not None else None
    names = _relative(paths) if paths else [f"[{index}]" for index in range(len(dataset))]
    sizes = _sizes(paths) if paths else []
    content = _content_of_files(paths, sizes) if paths and sizes else _content_of_images(dataset)
    return {
        "classes": [str(name) for name in class_names_of(dataset)],
        "names": names,
        "sizes": sizes,
        "said": _said(dataset),
        "content": {str(index): crc for index, crc in content.items()},
    }


def pack(splits: Mapping[str, Fingerprint]) -> bytes:
    """Returns the fingerprints of some splits as bytes that `unpack` reads."""
    return gzip.compress(json.dumps(splits).encode(), 1, mtime=0)


def unpack(data: bytes, where: str) -> dict[str, Fingerprint]:
    """Returns what `pack` was given.

    Args:
        data: What `pack` returned.
        where: What messages call it.

    Raises:
        FileError: It is something else, or would unpack to more than `UNPACKED.size`.
    """
    try:
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        text = stream.decompress(data, UNPACKED.size)
        if not stream.eof:
            raise FileError(f"{where} is cut, or unpacks to more than {UNPACKED.size:,} bytes; remove it.")
    except zlib.error as error:
        raise FileError(f"{where} cannot be unpacked ({error}); remove it.") from None
    splits = parse_json(text, where, UNPACKED)
    if not isinstance(splits, dict) or not all(map(_is_fingerprint, splits.values())):
        raise FileError(f"{where} holds no fingerprints of data; remove it.")
    return splits


def _is_fingerprint(one: Any) -> bool:
    if not isinstance(one, dict) or one.keys() != {"classes", "names", "sizes", "said", "content"}:
        return False
    lists = [one[key] for key in ("classes", "names", "sizes", "said")]
    if not all(isinstance(values, list) for values in lists) or not isinstance(one["content"], dict):
        return False
    _, names, *more = lists
    texts = all(isinstance(text, str) for values in lists[:2] for text in values)
    return texts and all(len(values) in (0, len(names)) for values in more)


def differences(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> str:
    """Returns in words how data has changed, such as "train: 1 image is gone (cat/3.png)"; "" if it is the same."""
    parts = []
    for split in dict.fromkeys((*before, *now)):
        if split not in now or split not in before:
            parts.append(
                f"{split}: there {'is' if split in now else 'was'} such a split, and there "
                f"{'was' if split in now else 'is'} none"
            )
        else:
            found = _differences(before[split], now[split])
            parts += [f"{split}: {', '.join(found)}"] if found else []
    return "; ".join(parts)


def _differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    return [text for text in (_classes(old["classes"], new["classes"]), *_images(old, new)) if text]


def _classes(old: list[str], new: list[str]) -> str:
    if old == new:
        return ""
    if len(old) != len(new):
        return f"there were {len(old)} classes and are {len(new)}"
    if sorted(old) == sorted(new):
        return "the classes have another order"
    renamed = [f"{a!r} is now {b!r}" for a, b in zip(old, new) if a != b]
    return f"classes were renamed ({_few(renamed)})"


def _images(old: Fingerprint, new: Fingerprint) -> Iterable[str]:
    places, before = ({name: index for index, name in enumerate(one["names"])} for one in (new, old))
    gone, added = (_some(a["names"], b) for a, b in ((old, places), (new, before)))
    yield _count(gone, "is gone", "are gone")
    yield _count(added, "is new", "are new")
    both = [(name, before[name], places[name]) for name in before if name in places]
    replaced = [name for name, a, b in both if _other_size(old, new, a, b) or _other_content(old, new, a, b)]
    yield _count(replaced, "has other content", "have other content")
    said = [name for name, a, b in both if old["said"] and new["said"] and old["said"][a] != new["said"][b]]
    yield _count(said, "has another label, object or caption", "have other labels, objects or captions")
    if not gone and not added and old["names"] != new["names"]:
        yield "the images have another order"


def _some(names: list[str], others: Mapping[str, int]) -> list[str]:
    return [name for name in names if name not in others]


def _other_size(old: Fingerprint, new: Fingerprint, a: int, b: int) -> bool:
    if not old["sizes"] or not new["sizes"]:
        return False
    first, second = old["sizes"][a], new["sizes"][b]
    return first != second and UNKNOWN not in (first, second)


def _other_content(old: Fingerprint, new: Fingerprint, a: int, b: int) -> bool:
    first, second = old["content"].get(str(a)), new["content"].get(str(b))
    return first is not None and second is not None and first != second


def _count(names: list[str], one: str, many: str) -> str:
    if not names:
        return ""
    return f"{len(names):,} {f'image {one}' if len(names) == 1 else f'images {many}'} ({_few(names)})"


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")


def _relative(paths: list[str]) -> list[str]:
    """Paths below the folder that all lie in, so that a data set may move; what is no path stays."""
    absolute = all(os.path.isabs(path) for path in paths)
    root = os.path.commonpath(paths if len(paths) > 1 else [os.path.dirname(paths[0])]) if absolute else ""
    start = len(root.rstrip(os.sep)) + 1 if root else 0
    return [path[start:].replace(os.sep, "/") for path in paths]


def _sizes(paths: list[str]) -> list[int]:
    """The sizes of the files; nothing where the paths are no files."""
    sizes = [UNKNOWN] * len(paths)
    for index in _spread(len(paths), MOST_SIZES):
        try:
            sizes[index] = os.stat(paths[index]).st_size
        except (OSError, ValueError):
            if index == 0:
                return []
    return sizes


def _content_of_files(paths: list[str], sizes: list[int]) -> dict[int, int]:
    few = len(paths) <= FEW and sum(sizes) <= FEW_BYTES
    chosen = [index for index in _spread(len(paths), FEW if few else SAMPLE) if sizes[index] != UNKNOWN]
    return {index: _crc_of_file(Path(paths[index]), None if few else SAMPLE_BYTES) for index in chosen}


def _crc_of_file(path: Path, count: int | None) -> int:
    with path.open("rb", buffering=0) as file:
        return zlib.crc32(file.read() if count is None else file.read(count) or b"")


def _content_of_images(dataset: Dataset) -> dict[int, int]:
    """Of images that are made when they are asked for; one that is another the second time says nothing."""
    content = {}
    for index in _spread(len(dataset), DECODED):
        first, second = (_crc_of_image(dataset[index]) for _ in range(2))
        if first is not None and first == second:
            content[index] = first
    return content


def _crc_of_image(sample: Any) -> int | None:
    try:
        return zlib.crc32(np.ascontiguousarray(as_array(sample.image)).tobytes())
    except (AttributeError, TypeError, ValueError):  # an item of another kind, or an image that training will name
        return None


def _said(dataset: Any) -> list[int]:
    """What is said about each image; nothing of data that says nothing image by image."""
    scenes, captions = (
        getattr(getattr(dataset, "annotations", None), "scenes", None),
        getattr(dataset, "captions", None),
    )
    if scenes is not None:
        return _crcs(scenes, lambda scene: str([(one.label, one.box, one.crowd) for one in scene.objects]))
    if captions is not None:
        return _crcs(captions, "\n".join)
    labels = getattr(dataset, "labels", ())
    return [int(label) for label in labels] if len(labels) == len(dataset) else []


def _crcs(values: Iterable[Any], text: Callable[[Any], str]) -> list[int]:
    return [zlib.crc32(text(value).encode("utf-8", "surrogatepass")) for value in values]


def _spread(count: int, most: int) -> list[int]:
    """At most so many positions, evenly from the first on."""
    return list(range(count)) if count <= most else [round(step * (count - 1) / (most - 1)) for step in range(most)]
