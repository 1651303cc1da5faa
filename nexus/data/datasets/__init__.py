"""The data sets, by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nexus.core.config import nearest
from nexus.data.dataset import DataError, Dataset
from nexus.data.datasets.captions import Captions
from nexus.data.datasets.cifar import CIFAR, Cifar
from nexus.data.datasets.digits import Digits
from nexus.data.datasets.folder import ImageFolder
from nexus.data.datasets.photo_crops import PhotoCrops
from nexus.data.datasets.photos import Photos
from nexus.data.detection.sources import FORMATS, kinds_at, open_annotated, what_is_meant

SOURCES = (
    "digits",
    "photos",
    "photo-crops",
    "digit-scenes",
    "digit-words",
    "digit-words-apart",
    "digit-videos",
    "folder:PATH",
    "captions:PATH",
    "conversations:PATH",
    "clips:PATH",
    *(f"{kind}:PATH" for kind in FORMATS),
    *CIFAR,
)


_OWN: dict[str, Callable[[str], Dataset]] = {}


def register_source(name: str, open_split: Callable[[str], Dataset]) -> None:
    """Makes a data set of your own known by a name: `register_source("photos-of-mine", MyPhotos)`.

    Args:
        name: What recipes and command lines call it, without a colon.
        open_split: From "train", "val" or "test" to the data set.
    """
    if ":" in name or name in SOURCES:
        raise ValueError(f"The name {name!r} has a colon, or is taken; give another one.")
    _OWN[name] = open_split


def load_dataset(source: str, split: str = "train", *, root: str | Path | None = None, download: bool = False) -> Any:
    """Returns one split of the data set that `source` names.

    Args:
        source: "digits", "photos", "photo-crops", "cifar10", "cifar100", or "folder:PATH" (see
            `nexus.data.datasets.folder` for its layouts); with texts "captions:PATH" (see
            `nexus.data.datasets.captions`) or "conversations:FILE.jsonl"; for detection "digit-scenes"
            ("digit-scenes:1600" has that many to train on), "digit-words" and "digit-words-apart" (likewise), or
            "coco:PATH", "yolo:PATH", "voc:PATH" and others (see `nexus.data.detection.sources`); of videos
            "digit-videos" ("digit-videos:32" likewise) or "clips:PATH" (see `nexus.data.clips.folders`).
        split: "train", "val", or, where there is one, "test".
        root: Of archives: where they lie or are downloaded to. Of a folder: what a relative PATH starts from.
        download: Whether a missing archive may be fetched.

    Raises:
        ValueError: The source or the split is unknown, or the data is missing or wrong (`DataError`, `ImageError`).
        ImportError: The digits need scikit-learn, the photos scikit-image.
    """
    # Videos are made of scenes, and scenes of digits, which stand in this folder: they cannot be loaded before it is.
    # Turns of conversations stand among the facets, which know scenes too.
    from nexus.data.clips.digit_videos import DigitVideos
    from nexus.data.clips.folders import ClipFolder, is_clip_folder
    from nexus.data.datasets.conversations import ConversationFile
    from nexus.data.detection.digit_scenes import DigitScenes
    from nexus.data.detection.digit_words import DigitWords

    plain = {"digits": Digits, "photos": Photos, "photo-crops": PhotoCrops, **_OWN}
    made = {
        "digit-scenes": DigitScenes,
        "digit-words": DigitWords,
        "digit-words-apart": partial(DigitWords, apart=True),
        "digit-videos": DigitVideos,
    }
    at_path = {
        "folder": _open_folder,
        "captions": Captions,
        "conversations": ConversationFile,
        "clips": ClipFolder,
        **{kind: partial(open_annotated, kind) for kind in FORMATS},
    }
    if source in plain:
        return plain[source](split)
    if source in CIFAR:
        return Cifar(source, split, root=root, download=download)
    kind, colon, path = source.partition(":")
    if kind in made:
        return made[kind](split, _count(source, split) if colon else None)
    if kind in at_path and path:
        return at_path[kind](Path(root or "") / Path(path).expanduser(), split)
    kinds = kinds_at(Path(source)) if not colon and Path(source).exists() else []
    kinds += ["clips"] if not colon and is_clip_folder(Path(source)) else []
    hint = f"Did you mean '{(kinds or ['folder'])[0]}:{source}'?" if Path(source).is_dir() else nearest(source, SOURCES)
    raise ValueError(f"There is no data set {source!r}. {hint} Images of your own are 'folder:PATH'.")


def _count(source: str, split: str) -> int | None:
    """Returns how many items "digit-scenes:1600" asks for: that many to train on, and always the same held-out ones."""
    name, _, text = source.partition(":")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{source!r} asks for {text!r} items; write a number above 0, such as {name}:32.")
    return int(text) if split == "train" else None


def _open_folder(path: Path, split: str) -> ImageFolder:
    try:
        return ImageFolder(path, split)
    except DataError as error:
        raise DataError(f"{error}{what_is_meant('folder', path)}") from error
