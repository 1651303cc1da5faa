"""The data sets, by name."""

from collections.abc import Callable
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
            "digit-videos" ("digit-videos:32" likewise) or "clips:PATH"
            (see `nexus.data.clips.folders`).
        split: "train", "val", or, where there is one, "test".
        root: Of archives: where they lie or are downloaded to. Of a folder: what a relative PATH starts from.
        download: Whether a missing archive may be fetched.

    Raises:
        ValueError: The source or the split is unknown, or the data is missing or wrong (`DataError`, `ImageError`).
        ImportError: The digits need scikit-learn, the photos scikit-image.
    """
    # Videos are made of scenes, and scenes of digits, which stand in this folder: they cannot be loaded before it is.
    # Turns of conversations stand among the facets, which know scenes too.
    from nexus.data.clips.digit_videos import DigitVideos, clip_count
    from nexus.data.clips.folders import ClipFolder, is_clip_folder
    from nexus.data.datasets.conversations import ConversationFile
    from nexus.data.detection.digit_scenes import DigitScenes, scene_count
    from nexus.data.detection.digit_words import DigitWords

    if source in _OWN:
        return _OWN[source](split)
    if source == "digits":
        return Digits(split)
    if source == "photos":
        return Photos(split)
    if source == "photo-crops":
        return PhotoCrops(split)
    if source == "digit-scenes":
        return DigitScenes(split)
    if source in ("digit-words", "digit-words-apart"):
        return DigitWords(split, apart=source == "digit-words-apart")
    if source == "digit-videos":
        return DigitVideos(split)
    if source in CIFAR:
        return Cifar(source, split, root=root, download=download)
    kind, colon, path = source.partition(":")
    if kind == "digit-scenes":
        return DigitScenes(split, scene_count(path, split))
    if colon and kind in ("digit-words", "digit-words-apart"):
        return DigitWords(split, scene_count(path, split, kind), apart=kind == "digit-words-apart")
    if kind == "digit-videos":
        return DigitVideos(split, clip_count(path, split))
    if kind == "folder" and path:
        return _open_folder(Path(root or "") / Path(path).expanduser(), split)
    if kind == "captions" and path:
        return Captions(Path(root or "") / Path(path).expanduser(), split)
    if kind == "conversations" and path:
        return ConversationFile(Path(root or "") / Path(path).expanduser(), split)
    if kind == "clips" and path:
        return ClipFolder(Path(root or "") / Path(path).expanduser(), split)
    if kind in FORMATS and path:
        return open_annotated(kind, Path(root or "") / Path(path).expanduser(), split)
    kinds = kinds_at(Path(source)) if not colon and Path(source).exists() else []
    kinds += ["clips"] if not colon and is_clip_folder(Path(source)) else []
    hint = f"Did you mean '{(kinds or ['folder'])[0]}:{source}'?" if Path(source).is_dir() else nearest(source, SOURCES)
    raise ValueError(f"There is no data set {source!r}. {hint} Images of your own are 'folder:PATH'.")


def _open_folder(path: Path, split: str) -> ImageFolder:
    try:
        return ImageFolder(path, split)
    except DataError as error:
        raise DataError(f"{error}{what_is_meant('folder', path)}") from error
