"""`Predictor`: images in, results out, with the model's own preprocessing.

Dims: b batch, c channels, h w pixels.
"""

import csv
import glob
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from nexus.core.files import write_whole
from nexus.core.preprocessing import Preprocessing
from nexus.data import ImageError, eval_transform, load_image
from nexus.data.detection.check import read_annotations
from nexus.data.detection.numbering import Numbers
from nexus.data.detection.scene import Annotations
from nexus.data.geometry import crop
from nexus.data.images import EXTENSIONS, Source, image_size, naming
from nexus.data.images import Image as LoadedImage
from nexus.data.places import walk
from nexus.data.remote import fetch_image, is_address
from nexus.data.video import VIDEO_EXTENSIONS, read_frames, write_frames
from nexus.tasks.protocol import Task, Tiled
from nexus.tasks.session import Ending, Session
from nexus.tasks.source import evaluating, open_model, preprocessing_of
from nexus.tasks.table import task_of
from nexus.tasks.tiles import Tiling, Window
from nexus.tasks.views import ImageInfo, View
from nexus.visualization.pictures import numbered_name

COCO_RESULTS = ".coco.json"
DEFAULT_MODEL = "tf_efficientnet_lite0.pypi_in1k"
"""What commands ask without --model: ImageNet's 1,000 classes, weights of the extra `weights` that are on the disk."""


class SkippedImageWarning(UserWarning):
    """An image of a folder that could not be used was left out."""


class _Item(NamedTuple):
    """One image to come.

    Attributes:
        name: What messages call it.
        source: Where it is.
        found: Whether it was found in a folder or by a pattern, not named by the user.
    """

    name: str
    source: Source
    found: bool = False


class _Part(NamedTuple):
    """A view that the model is shown, and the image that it is a part of.

    Attributes:
        view: What the session sees.
        info: Of the whole image.
        windows: All views of the image, in order.
    """

    view: View
    info: ImageInfo
    windows: list[Window]


class Predictor:
    """Runs a model on files, folders and images in memory: `Predictor("runs/digits")("photos/*.jpg")`.

    Attributes:
        model: The model, on its device.
        preprocessing: How an image becomes its input.
        task: What its outputs mean, with the class names. A model for images and videos is asked by another one where
            a video or prompts about its objects are given.
        class_names: Instead of the model's own.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        *,
        device: torch.device | str | None = None,
        batch_size: int = 16,
        strict: bool = False,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        class_names: Sequence[str] = (),
        tiles: Tiling | int | None = None,
        tokenizer: str | Path | None = None,
    ) -> None:
        """Opens the model.

        Args:
            model: A module, the folder of a run or of a saved model, a weight file, or a registered name.
            device: None means where the module is, or a GPU if there is one.
            batch_size: Images that the model sees at once.
            strict: Whether a broken image that was found in a folder, or by a pattern, is an error. Otherwise it is
                left out with a `SkippedImageWarning` that names it. An image that was named is always an error.
            preprocessing: Instead of the model's own.
            class_names: Instead of the model's own; a model without any calls its classes "0", "1", ...
            tiles: Of a model that finds objects: large images are cut into tiles of so many pixels, which overlap by
                a fifth, and what is found in them is merged (`nexus.tasks.Tiling` has more settings).
            tokenizer: Of a model that reads texts, instead of its own: a folder, or a repository of the hub.

        Raises:
            ValueError: There is no such model, it does not say how images become its input, or it finds no
                objects and shall work on tiles.
        """
        _check_count("batch_size", batch_size)
        if isinstance(preprocessing, Mapping):
            preprocessing = Preprocessing.from_mapping(preprocessing)
        self.model = open_model(model, device)
        self.class_names = tuple(class_names)
        self.task = task_of(self.model).for_model(self.model, class_names, tokenizer=tokenizer)
        self.preprocessing = preprocessing_of(self.model, preprocessing) if self.task.takes_images else preprocessing
        self.tiling = Tiling(size=tiles) if isinstance(tiles, int) else tiles
        if self.tiling is not None and not isinstance(self.task, Tiled):
            raise ValueError(f"tiles are for detectors; this model's task is {self.task.name}. Leave tiles out.")
        self.batch_size, self.strict = batch_size, strict
        self._transform = eval_transform(self.preprocessing) if self.preprocessing else None

    def __call__(
        self, images: Source | Iterable[Source] | None = None, *, prompts: Any = None, frame_step: int = 1
    ) -> list[Any]:
        """Returns one result of the task per image, in order: `Prediction` of a classifier, `Detections` of a detector.

        Args:
            images: A file, a folder (with all images below it, sorted), a pattern such as `"photos/**/*.jpg"`, the
                address of an image (`"https://..."`), a video, an image (PIL, array (h, w) or (h, w, c), tensor
                (c, h, w)), images in one array (b, h, w, c) or tensor (b, c, h, w), or several of these. Arrays and
                tensors hold 0 to 255 as uint8, or 0 to 1 as floats. Frames stay with their results, to be drawn: for
                a long video use `stream`. None where no image goes in: then there is a result for each prompt.
            prompts: What the model is asked, whatever its kind takes: words for a CLIP or SigLIP
                (`["cat", "red car"]`), a question, points, a camera; for all images, or one for each.
            frame_step: Of a video, 1 means every frame, 5 every fifth.

        Raises:
            ValueError: There is no such file, no image in a folder, or an image cannot be read or does not fit; the
                message names it. Or the model takes no prompts, or not these.
        """
        return list(self.stream(images, prompts=prompts, frame_step=frame_step))

    def stream(
        self, images: Source | Iterable[Source] | None = None, *, prompts: Any = None, frame_step: int = 1
    ) -> Iterator[Any]:
        """Yields what a call returns, batch by batch, for more images or frames than fit in memory.

        A model with memory sees all of a call as one sequence, except that every video begins a new one.
        """
        _check_count("frame_step", frame_step)
        parts = _prompts_alone(prompts) if images is None else self._read(_items(images, frame_step))
        task = self.task_for(images, prompts)
        for _, sequence in groupby(parts, key=lambda part: _sequence_of(part.info.path)):
            with evaluating(self.model):
                session = task.session(self.model, prompts)
            yield from self._answers(session, sequence)
            if isinstance(session, Ending):
                session.end()

    def task_for(self, *shown: Any) -> Task:
        """Returns what the model's outputs mean where it is shown these images and prompts."""
        kind = task_of(self.model, *shown)
        return self.task if isinstance(self.task, kind) else kind.for_model(self.model, self.class_names)

    def _answers(self, session: Session, parts: Iterable[_Part]) -> Iterator[Any]:
        seen: list[Any] = []
        for batch in _batches(parts, self.batch_size):
            with evaluating(self.model):
                results = session.push_all([part.view for part in batch])
            for part, result in zip(batch, results, strict=True):
                seen.append(result)
                if len(seen) == len(part.windows):
                    yield seen[0] if len(seen) == 1 else self._merged(seen, part)
                    seen = []

    def _merged(self, seen: Sequence[Any], part: _Part) -> Any:
        assert self.tiling is not None
        assert isinstance(self.task, Tiled)
        return self.task.merge_tiles(seen, part.info, part.windows, self.tiling.match)

    def _read(self, items: Iterable[_Item]) -> Iterator[_Part]:
        """Yields each image, or its tiles one after another, with the pixels as the model takes them."""
        used, left_out = 0, []
        for item in items:
            try:
                parts = self._parts(item, used, load_image(item.source, name=item.name))
                first = next(parts)
            except ImageError as error:
                if self.strict or not item.found:
                    raise
                warnings.warn(f"Left out: {error}", SkippedImageWarning, stacklevel=4)
                left_out.append(error)
                continue
            used += 1
            yield first
            yield from parts
        if left_out and not used:
            raise ImageError(f"Not one of {len(left_out)} images can be used. The first: {left_out[0]}")

    def _parts(self, item: _Item, number: int, image: LoadedImage) -> Iterator[_Part]:
        """Yields the parts of an image that the model sees one by one: the image itself, or its tiles."""
        if self._transform is None:
            raise ValueError(f"A model for {self.task.name} looks at no images; give prompts alone.")
        _check_range(item, self.preprocessing)
        height, width = image_size(image)
        info = ImageInfo(item.name, height, width, None if isinstance(item.source, str | Path) else image)
        windows = [Window(0, 0, width, height)] if self.tiling is None else self.tiling.windows(height, width)
        for window in windows:
            size = window.height, window.width
            with naming(item.name):
                pixels = self._transform(
                    image if size == (height, width) else crop(image, window.top, window.left, size)
                )
            view = View(number, info._replace(height=window.height, width=window.width), pixels)
            yield _Part(view, info, windows)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1.")


def _check_range(item: _Item, preprocessing: Preprocessing | None) -> None:
    """Raises ValueError for floats above 1, unless the model takes values in units of their own, or stretches them."""
    values, free = item.source, False
    if preprocessing is not None:
        free = max(preprocessing.mean) > 1 or preprocessing.levels == "image"
    if free or not isinstance(values, np.ndarray | Tensor):
        return
    floating = values.is_floating_point() if isinstance(values, Tensor) else np.issubdtype(values.dtype, np.floating)
    if floating and (highest := float(values.max())) > 1.001:
        raise ValueError(
            f"{item.name} holds floats up to {highest:.4g}; floats are 0 to 1: divide by 255, or give uint8."
        )


def _prompts_alone(prompts: Any) -> Iterator[_Part]:
    """Yields a view for each prompt, where no image goes in."""
    if prompts is None:
        raise ValueError("There is nothing to look at: give images, or prompts for a model that needs no image.")
    for number in range(len(prompts)):
        info = ImageInfo(f"prompts[{number}]", 0, 0)
        yield _Part(View(number, info, None), info, [Window(0, 0, 0, 0)])


def _sequence_of(path: str) -> str:
    """Returns the video that a frame is of; everything else is one sequence."""
    name, mark, number = path.rpartition("#")
    return name if mark and number.isdecimal() and Path(name).suffix.lower() in VIDEO_EXTENSIONS else ""


def _batches(parts: Iterable[_Part], size: int) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    for part in parts:
        batch.append(part)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def write_predictions(
    predictions: Sequence[Any],
    path: str | Path,
    *,
    top: int | None = None,
    data: str | Path | Annotations | None = None,
    long: bool = False,
) -> Path:
    """Writes predictions in the format that the path's ending names; returns the path.

    `.json` is a list, `.csv` a line per object, or for classes a line per image with a column for each class. Of a
    detector also `.coco.json`, COCO's results, whose image ids are those of `data`, or the numbers that the files are
    called by, or else 1, 2, ...; and without an ending a folder with a YOLO text file per image (class, centre, size,
    score).

    Args:
        predictions: What a `Predictor` returned.
        path: The file or folder.
        top: Guesses or objects per image; None means 5 guesses, and all objects. Of a `.csv` it means `long` too.
        data: For `.coco.json`: the data set, such as "coco:PATH", whose numbers of images and classes are written, so
            that the results can be measured on it. Classes are found by name; what it does not have is left out.
        long: Of a `.csv` of classes: a line per guess with its rank instead.

    Raises:
        ValueError: The ending is another one, `data` has not an image, or two images would share a file.
    """
    path = Path(path)
    if data is not None:
        predictions = _numbered(predictions, path, data)
    own = {ending: write for one in predictions for ending, write in one.formats.items()}
    if long or top is not None:
        own.pop(".csv", None)
    for ending, write in own.items():
        if path.name.lower().endswith(ending) if ending else not path.suffix:
            write(predictions, path)
            return path
    limit = {} if top is None else {"count": top}
    if path.name.lower().endswith(COCO_RESULTS):
        raise ValueError(f"{path} ends in {COCO_RESULTS}, which is for the objects of detectors; write .json or .csv.")
    if path.suffix.lower() == ".json":
        content = [prediction.to_json(**limit) for prediction in predictions]
        return _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if path.suffix.lower() == ".csv":
        rows = [row for prediction in predictions for row in prediction.to_rows(**limit)]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, rows[0] if rows else (), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return _write(path, buffer.getvalue())
    raise ValueError(
        f"{path} ends in {path.suffix!r}; predictions are written to .json or .csv, those of detectors also to"
        " .coco.json or a folder."
    )


def _numbered(predictions: Sequence[Any], path: Path, data: str | Path | Annotations) -> list[Any]:
    if not path.name.lower().endswith(COCO_RESULTS) or not all(COCO_RESULTS in one.formats for one in predictions):
        raise ValueError(f"data gives numbers to detections in a file *{COCO_RESULTS}, not to {path}; leave it out.")
    numbers = Numbers(data if isinstance(data, Annotations) else read_annotations(data))
    return [one.numbered(numbers) for one in predictions]


def draw_predictions(
    predictions: Iterable[Any], target: str | Path, *, rate: float = 25.0, min_score: float | None = None
) -> list[Path]:
    """Draws each prediction on its image; returns the paths of what was written.

    Args:
        predictions: What a `Predictor` returned, or streams.
        target: A folder for pictures, numbered in order; or a video such as `"out.mp4"`, for frames of one size.
        rate: Frames per second of that video.
        min_score: Draw finds from this score on; None leaves it to the results' own `draw`.
    """
    target = Path(target)
    least = {} if min_score is None else {"min_score": min_score}
    if target.suffix.lower() in VIDEO_EXTENSIONS:
        return [write_frames(target, (one.draw(**least) for one in predictions), rate=rate)]
    written = []
    for number, one in enumerate(predictions):
        path = target / numbered_name(number, one.path)
        picture = one.draw(**least)
        write_whole(path, lambda part, picture=picture: picture.save(part, "PNG"))
        written.append(path)
    return written


def _write(path: Path, text: str) -> Path:
    # The name of a file may hold bytes that are no text; escaped so, JSON gives them back.
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace"))
    return path


def _items(images: Source | Iterable[Source], frame_step: int, name: str = "image") -> Iterator[_Item]:
    """Yields the images that the user's input means, in order; files are not opened yet."""
    if is_address(images):
        yield _Item(str(images), fetch_image(str(images)))
    elif isinstance(images, str | os.PathLike):
        if not str(images):
            raise ValueError(f"{name} is an empty text; name a file, a folder (. is this one) or a pattern.")
        yield from _files(Path(images), frame_step)
    elif isinstance(images, np.ndarray | Tensor):
        yield from _arrays(images, name)
    elif isinstance(images, Image | bytes):
        yield _Item(name, images)
    elif isinstance(images, io.BufferedIOBase | io.RawIOBase):
        yield _Item(name, images.read())
    elif isinstance(images, io.IOBase):
        raise ValueError(f'{name} is a file opened as text; open it as bytes: open(path, "rb").')
    elif isinstance(images, Iterable) and not isinstance(images, dict):
        for place, one in enumerate(images):
            yield from _items(one, frame_step, f"{name}s[{place}]")
    else:
        raise ValueError(
            f"{name} is a {type(images).__name__}; give a file, a folder, a pattern, a PIL image, an array, a tensor,"
            " or several of these."
        )


def _files(path: Path, frame_step: int) -> Iterator[_Item]:
    if path.suffix.lower() in VIDEO_EXTENSIONS and not path.is_dir():
        for number, frame in enumerate(read_frames(path, every=frame_step)):
            yield _Item(f"{path}#{number * frame_step}", frame)
        return
    if path.is_dir():
        found = sorted(walk(path))
        if not found:
            raise ValueError(
                f"There is no image in the folder {path} (files ending in {' '.join(sorted(EXTENSIONS))})."
            )
    elif glob.has_magic(str(path)) and not path.exists():
        found = sorted(Path(file) for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
        if not found:
            raise ValueError(f"No file matches {str(path)!r}.")
    else:
        yield _Item(str(path), path)
        return
    yield from (_Item(str(file), file, found=True) for file in found)


def _arrays(images: np.ndarray | Tensor, name: str) -> Iterator[_Item]:
    """Yields one image or a batch of them; a tensor that is already normalized is refused."""
    if images.ndim not in (2, 3, 4) or (isinstance(images, Tensor) and images.ndim == 2):
        layout = "(c, h, w) or (b, c, h, w)" if isinstance(images, Tensor) else "(h, w), (h, w, c) or (b, h, w, c)"
        raise ValueError(f"{name} has shape {tuple(images.shape)}; it must be {layout}.")
    if isinstance(images, Tensor) and images.is_floating_point() and images.numel() and images.min() < 0:
        raise ValueError(
            f"{name} holds values from {images.min():.3g} to {images.max():.3g}, so it seems to be normalized already."
            " Predictor normalizes itself: give 0 to 1, or call the model with this tensor."
        )
    if images.ndim == 4:
        many = "images" if name == "image" else name
        yield from (_Item(f"{many}[{place}]", one) for place, one in enumerate(images))
    else:
        yield _Item(name, images)
