"""Readers with one fault each: what the harness must notice."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.fuzz import harness
from tests.fuzz.harness import Reader
from tests.fuzz.payloads import MARKER


def _seed(folder: Path) -> None:
    (folder / "a.json").write_text('{"a": [1, 2, 3]}')


class _Patient:
    """Stands the seed, and does its worst from the second call on."""

    def __init__(self, worst: object) -> None:
        self.worst, self.calls = worst, 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        if self.calls > 1:
            self.worst(folder)  # type: ignore[operator]


def _spin(folder: Path) -> None:
    while True:
        pass


def _grow(folder: Path) -> None:
    """Lowers the bound in this process first: a busy machine may take over 2 s to hand out 500 MB, which is another fault."""
    harness.MEGABYTES = 50
    b"x" * (70 << 20)


def _refuse(folder: Path) -> None:
    raise ValueError(f"{folder / 'a.json'} is not right; write it again.")


def _say_much(folder: Path) -> None:
    raise ValueError(f"{folder / 'a.json'}:" + "\nmuch" * 9)


def _say_nothing(folder: Path) -> None:
    raise ValueError("it is wrong")


def _leave_raw(folder: Path) -> None:
    raise KeyError("a")


def _write_elsewhere(folder: Path) -> None:
    (folder.parent.parent / "nexus-fuzz-elsewhere").mkdir(exist_ok=True)


READERS = {
    name: Reader(name, _seed, _Patient(worst), {"a.json": "json"})
    for name, worst in {
        "accepts": lambda folder: None,
        "refuses": _refuse,
        "hangs": _spin,
        "sleeps": lambda folder: time.sleep(30),
        "grows": _grow,
        "dies": lambda folder: os.kill(os.getpid(), signal.SIGSEGV),
        "runs code": lambda folder: MARKER.mkdir(),
        "starts a program": lambda folder: subprocess.run(["true"], check=True),
        "writes elsewhere": _write_elsewhere,
        "several lines": _say_much,
        "names no file": _say_nothing,
        "raw error": _leave_raw,
    }.items()
}
