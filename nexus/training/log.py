"""What a run tells while it trains: JSON lines in a file (`loggers` has other places), and a bar or lines for a person.

A record is one line of `metrics.jsonl`: `{"kind": "train", "step": 20, "epoch": 0.9, "loss": 1.83, "lr": 0.0005}`, or
of kind "val" with the task's figures. Times are kept out of the file, so that two equal runs write equal files.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TextIO, get_args

from nexus.core.files import write_whole

Record = dict[str, Any]
Callback = Callable[[Record], None]


class MetricsFile:
    """`metrics.jsonl`, and its records in memory; without a path, only those.

    Attributes:
        records: All lines so far, those before a resume included.
    """

    def __init__(self, path: Path | None, history: bytes = b"") -> None:
        self.records: list[Record] = [json.loads(line) for line in history.splitlines()]
        self._file: BinaryIO | None = None
        if path is not None:
            write_whole(path, lambda part: part.write_bytes(history))
            self._file = path.open("ab")

    def write(self, record: Record) -> None:
        """Appends a record; it is in the file when this returns."""
        self.records.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()

    def content(self) -> bytes:
        """Returns the file as it should be, whatever happened to the one on the disk."""
        return b"".join(json.dumps(record).encode() + b"\n" for record in self.records)

    def close(self) -> None:
        """Closes the file; what a full disk did not take stands in the checkpoints."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


class Display(Protocol):
    """What a person sees while the run goes on."""

    def record(self, record: Record) -> None:
        """Shows a line of the metrics."""
        ...

    def message(self, text: str) -> None:
        """Shows a sentence."""
        ...

    def close(self) -> None:
        """Ends the display."""
        ...


DisplayName = Literal["auto", "bar", "lines", "off"]


def check_display(name: object) -> None:
    """Raises ValueError unless there is such a display."""
    if name not in get_args(DisplayName):
        raise ValueError(f"progress is {name!r}; it must be one of {', '.join(get_args(DisplayName))}.")


def make_display(name: DisplayName, total_steps: int, done: int) -> Display:
    """Returns the display: "auto" is a bar on a terminal and lines elsewhere."""
    check_display(name)
    if name == "auto":
        name = "bar" if sys.stderr.isatty() else "lines"
    match name:
        case "bar":
            return Bar(total_steps, done)
        case "lines":
            return Lines(total_steps, done)
        case _:
            return Silence()


class Silence:
    """Shows nothing."""

    def record(self, record: Record) -> None:
        """Shows nothing."""

    def message(self, text: str) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Has nothing to end."""


class Lines:
    """Plain lines, for files and pipes; of train records at most one every `seconds`."""

    def __init__(self, total_steps: int, done: int, stream: TextIO | None = None, seconds: float = 5.0) -> None:
        self.total, self.seconds = total_steps, seconds
        self.stream = stream or sys.stderr
        self.pace = _Pace(total_steps, done)
        self.shown = time.monotonic()

    def record(self, record: Record) -> None:
        """Writes the record if its time has come."""
        now = time.monotonic()
        if record["kind"] == "train" and now - self.shown < self.seconds:
            return
        self.shown = now
        left = f"  {self.pace.remaining(record['step'])} left" if record["kind"] == "train" else ""
        self.message(f"step {record['step']}/{self.total}  {describe(record)}{left}")

    def message(self, text: str) -> None:
        """Writes a sentence."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Has nothing to end."""


class Bar:
    """A progress bar with the last train and validation figures."""

    def __init__(self, total_steps: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.figures: dict[str, str] = {}
        self.task = self.progress.add_task("", total=total_steps, completed=done)
        self.progress.start()

    def record(self, record: Record) -> None:
        """Moves the bar and shows the figures."""
        self.figures[record["kind"]] = describe(record)
        self.progress.update(self.task, completed=record["step"], description="  ".join(self.figures.values()))

    def message(self, text: str) -> None:
        """Writes a sentence above the bar."""
        self.progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self.progress.stop()


class _Pace:
    """How long the rest takes at the speed so far."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.first, self.start = total, done, time.monotonic()

    def remaining(self, step: int) -> str:
        done = max(1, step - self.first)
        seconds = round((time.monotonic() - self.start) / done * (self.total - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def describe(record: Record) -> str:
    """Returns a record's figures for a person: `train loss 0.1234 lr 0.0005`."""
    figures = [f"{name} {_short(name, value)}" for name, value in record.items() if name not in ("kind", "step")]
    return f"{record['kind']} {' '.join(figures)}"


def _short(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2%}" if name.startswith("top") else f"{value:.4g}"


def announce(callbacks: Sequence[Callback], record: Record) -> bool:
    """Calls every callback with a record; returns whether one of them wants the run to end, by `StopIteration`."""
    stops = False
    for callback in callbacks:
        try:
            callback(record)
        except StopIteration:
            stops = True
    return stops
