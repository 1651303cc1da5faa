"""A folder of images and the folder that keeps what is marked in them.

The output folder holds `project.json` (the classes) and `marks/<image>.json` for each image in which something was
marked, each written whole or not at all, and what is exported. Who opens it again goes on where it was left.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from nexus.app.annotate.classes import Label, first_labels, read_labels
from nexus.app.annotate.limits import MARKS
from nexus.app.annotate.marks import VERSION, Marks, read_marks
from nexus.core.documents import FileError, read_json
from nexus.core.files import write_whole
from nexus.data.dataset import DataError
from nexus.data.images import EXTENSIONS, file_size
from nexus.data.places import is_within, walk
from nexus.data.video import VIDEO_EXTENSIONS, read_frames

PROJECT, MARKS_FOLDER = "project.json", "marks"
FRAMES, FRAMES_NOTE = "frames", "frames.json"


class Conflict(ValueError):
    """What was to be saved is not made from what is there now."""


class Status(NamedTuple):
    """What is known of an image without reading its marks.

    Attributes:
        objects: How many of each class, by its number.
        done: Whether nothing is missing.
        revision: How often it was saved.
    """

    objects: Counter[int]
    done: bool
    revision: int


NEW = Status(Counter(), False, 0)


class Project:
    """Images, their classes, and what is marked in them. One process at a time may write it."""

    def __init__(
        self, source: Path, output: Path | None = None, class_names: Sequence[str] = (), *, every: int = 1
    ) -> None:
        """Opens a project, or begins one.

        Args:
            source: A folder of images, one image, or a video, whose frames are written into the output folder first.
            output: Where marks are kept; None is `<source>-annotations` beside the source.
            class_names: Of a new project; of one that is there, those that it lacks are added.
            every: Of a video, use each so many frames.

        Raises:
            ValueError: There are no images, or what is kept cannot be read.
        """
        self.output = output or output_of(source)
        self.root, self.names = find_images(frames_of(source, self.output, every) if is_video(source) else source)
        if not source.is_file() and self.output.resolve().is_relative_to(source.resolve()):
            raise ValueError(
                f"{self.output} lies in {source}, whose images are annotated; name a folder outside of it."
            )
        self._lock = Lock()
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self.labels = self._read_labels(class_names)
        self.status: dict[int, Status] = {}
        self.lost: list[str] = []
        for name, marks in self._kept():
            if name in self._numbers:
                self.status[self._numbers[name]] = _status_of(marks)
            else:
                self.lost.append(name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from writing the same project.

        Raises:
            ValueError: One does already.
        """
        lock = FileLock(self.output / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"Another `nexus annotate` writes into {self.output}; close it, or name another --output."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def path(self, number: int) -> Path:
        """Returns the file of an image."""
        return self.root / self.names[number]

    def size(self, number: int) -> tuple[int, int]:
        """Returns height and width of an image.

        Raises:
            ImageError: It cannot be read.
        """
        return file_size(self.path(number))

    def marks(self, number: int) -> Marks:
        """Returns what is marked in an image.

        Raises:
            ValueError: The image or what is kept of it cannot be read, or they are of different sizes.
        """
        height, width = self.size(number)
        file = self._file(self.names[number])
        if number not in self.status:
            return Marks(height, width)
        marks = read_marks(read_json(file, MARKS), str(file))
        self._check(marks, (height, width), str(file))
        return marks

    def save(self, number: int, marks: Marks) -> Marks:
        """Keeps what is marked in an image, made from the revision that `marks` has; returns it with its new one.

        Raises:
            Conflict: Something else was saved since that revision.
            ValueError: The marks do not fit the image, or their classes are not there.
        """
        where = self.names[number]
        self._check(marks, self.size(number), where)
        with self._lock:
            known = {label.id for label in self.labels}
            strange = next((mark.label for mark in marks.objects if mark.label not in known), None)
            if strange is not None:
                raise DataError(
                    f"{where}: there is no class {strange}; there are {', '.join(map(str, sorted(known)))}."
                )
            if marks.revision != self.status.get(number, NEW).revision:
                raise Conflict(f"{where} was changed in another window; load it again.")
            saved = Marks(marks.height, marks.width, marks.objects, marks.done, marks.revision + 1)
            _write(self._file(where), saved.to_json())
            self.status[number] = _status_of(saved)
        return saved

    def set_labels(self, labels: Sequence[Label]) -> None:
        """Keeps another list of classes.

        Raises:
            Conflict: A class is missing of which there are objects.
        """
        with self._lock:
            kept, used = {label.id for label in labels}, self.used()
            for label in self.labels:
                if label.id not in kept and used[label.id]:
                    raise Conflict(f"{label.name} has {used[label.id]} objects; give them another class first.")
            self._write_labels(tuple(labels))

    def used(self) -> Counter[int]:
        """Returns how many objects each class has, by its number."""
        return sum((status.objects for status in self.status.values()), Counter[int]())

    def _file(self, name: str) -> Path:
        return self.output / MARKS_FOLDER / f"{name}.json"

    def _check(self, marks: Marks, size: tuple[int, int], where: str) -> None:
        if (marks.height, marks.width) != size:
            raise DataError(
                f"{where}: the marks are of an image of {marks.width} x {marks.height} pixels, and it has"
                f" {size[1]} x {size[0]} now (width x height); put the old image back, or remove its marks."
            )

    def _kept(self) -> Iterator[tuple[str, Marks]]:
        folder = self.output / MARKS_FOLDER
        for file in walk(folder, [".json"]) if folder.is_dir() else ():
            name = file.relative_to(folder).as_posix().removesuffix(".json")
            yield name, read_marks(read_json(file, MARKS), str(file))

    def _read_labels(self, names: Sequence[str]) -> tuple[Label, ...]:
        file = self.output / PROJECT
        if not file.exists():
            self._write_labels(first_labels(names))
            return self.labels
        content = read_json(file)
        if not isinstance(content, dict) or set(content) != {"version", "classes"} or content["version"] != VERSION:
            raise FileError(f"{file} is no project of `nexus annotate`, version {VERSION}; name another --output.")
        labels = read_labels(content["classes"], str(file))
        return self._with_more(labels, names)

    def _with_more(self, labels: tuple[Label, ...], names: Sequence[str]) -> tuple[Label, ...]:
        there = {label.name for label in labels}
        more = [label for label in (first_labels(names) if names else ()) if label.name not in there]
        first = max(label.id for label in labels) + 1
        if more:
            self._write_labels(
                (*labels, *(Label(first + place, one.name, one.color) for place, one in enumerate(more)))
            )
        return self.labels if more else labels

    def _write_labels(self, labels: tuple[Label, ...]) -> None:
        rows: list[dict[str, Any]] = [label._asdict() for label in labels]
        _write(self.output / PROJECT, {"version": VERSION, "classes": rows})
        self.labels = labels


def output_of(source: Path) -> Path:
    """Returns where the marks of a source are kept if nothing else is said: beside it."""
    place = source.absolute() if source.name else source.resolve()
    return place.with_name(f"{place.stem if source.is_file() else place.name}-annotations")


def is_video(source: Path) -> bool:
    """Returns whether a source is a video by its name."""
    return source.suffix.lower() in VIDEO_EXTENSIONS and not source.is_dir()


def frames_of(source: Path, output: Path, every: int = 1) -> Path:
    """Returns the folder with the frames of a video as PNG files, which are written unless they are there.

    Raises:
        ImageError: The video cannot be read.
        ValueError: The frames that are there are of another video, or were taken otherwise.
    """
    folder, note = output / FRAMES, output / FRAMES_NOTE
    if not source.is_file():
        raise ValueError(f"{source} does not exist; check the path.")
    said: dict[str, Any] = {"video": source.name, "bytes": source.stat().st_size, "every": every}
    if note.exists():
        there = read_json(note)
        if not isinstance(there, dict) or {**there, "every": every} != said or every not in (1, there.get("every")):
            raise ValueError(f"{folder} holds frames of another video, or taken otherwise; name another --output.")
        return folder
    for number, frame in enumerate(read_frames(source, every=every)):
        path = folder / f"{number * every:06}.png"
        write_whole(path, lambda part, frame=frame: frame.save(part, "PNG", compress_level=1))
    _write(note, said)
    return folder


def find_images(source: Path) -> tuple[Path, list[str]]:
    """Returns the folder of images and their names in it, sorted, with slashes.

    Raises:
        ValueError: There are none, or one leads out of the folder.
    """
    if source.is_file() and source.suffix.lower() in EXTENSIONS:
        return source.parent, [source.name]
    if not source.is_dir():
        raise ValueError(f"{source} is no folder of images, and no image; check the path.")
    files = list(walk(source))
    if not files:
        raise ValueError(f"There is no image in the folder {source} (files ending in {' '.join(sorted(EXTENSIONS))}).")
    for file in files:
        if not is_within(file, source):
            raise ValueError(f"{file} is a link that leads out of {source}; put the file itself there.")
    return source, [file.relative_to(source).as_posix() for file in files]


def _status_of(marks: Marks) -> Status:
    return Status(Counter(mark.label for mark in marks.objects), marks.done, marks.revision)


def _write(path: Path, content: Any) -> None:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace"))
