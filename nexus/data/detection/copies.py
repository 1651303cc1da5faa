"""What converting writes: copies of images and texts, below one folder and nowhere else."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from nexus.core.files import write_whole
from nexus.data.dataset import DataError
from nexus.data.detection.scene import Scene
from nexus.data.images import ImageError, file_size
from nexus.data.places import is_within, what_it_is


def copy_image(scene: Scene, root: Path, target: Path) -> None:
    """Copies the image of a scene to `target`, which lies below `root`; a link that stands there is replaced.

    Raises:
        DataError: It is no image, or a folder on the way is a link that leads out of `root`.
    """
    source = Path(scene.path)
    problem = what_it_is(source)
    if problem is not None:
        raise DataError(f"{source} {problem}.")
    try:
        file_size(source)  # whatever a file names, only images are copied
    except ImageError as error:
        raise DataError(str(error)) from None
    _prepare(root, target)
    if target.is_symlink() or not target.exists() or not target.samefile(source):
        write_whole(target, lambda part: shutil.copyfile(source, part))


def write_text(root: Path, target: Path, text: str) -> None:
    """Writes a text whole or not at all, likewise."""
    _prepare(root, target)
    write_whole(target, lambda part: part.write_text(text, encoding="utf-8"))


def _prepare(root: Path, target: Path) -> None:
    if not is_within(target.parent, root):
        raise DataError(f"{target.parent} is a link that leads out of {root}; remove it, or write into a new folder.")
    target.parent.mkdir(parents=True, exist_ok=True)


def flat_names(scenes: Sequence[Scene]) -> list[str]:
    """Names of the images' files without their folders.

    Raises:
        DataError: Two would have the same name of labels.
    """
    seen: dict[str, str] = {}
    for scene in scenes:
        stem = Path(scene.path).stem
        if stem in seen:
            raise DataError(f"{scene.path} and {seen[stem]} would share the label file {stem}.txt; rename one.")
        seen[stem] = scene.path
    return [Path(scene.path).name for scene in scenes]
