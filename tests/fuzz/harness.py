"""Runs a reader on damaged files, in a process that may be lost, and judges what comes of each.

A reader may accept a file or refuse it: with an error of the library's own, short, that names a file. Anything else is
a fault: another error, a message of many lines (but for mithril, which tells where each of two shapes was set), code of
the file that ran, a write outside of its folder, more than `CPU_SECONDS`, more than `MEGABYTES`, the death of the
process.
"""

import faulthandler
import gc
import importlib
import multiprocessing
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.mutation import mutate
from tests.fuzz.payloads import MARKER

CPU_SECONDS = 2.0
WALL_SECONDS = 60.0
"""A process that sleeps uses no time of the processor; it is lost after this."""
START_SECONDS = 300.0
"""Until the first example; a reader may import a large library."""
MEGABYTES = 500
ADDRESS_SPACE = 4 << 30
"""Beyond what the process has mapped already: keeps the machine alive."""
LONGEST_MESSAGE = 2000
MOST_LINES = 4
"""A name out of a file may hold line breaks; the command line spells them out."""


@dataclass(frozen=True)
class Reader:
    """One way by which a stranger's file becomes data.

    Attributes:
        name: What the table calls it.
        seed: Writes a whole and valid example into a folder.
        read: Reads it.
        files: The files that are damaged, relative to the folder, and the kind of structure of each (see `KINDS`).
        repair: Called after the damage: makes checksums agree that would only hide what lies behind.
    """

    name: str
    seed: Callable[[Path], object]
    read: Callable[[Path], object]
    files: Mapping[str, str]
    repair: Callable[[Path], object] = lambda folder: None


@dataclass(frozen=True)
class Fault:
    """An example that a reader did not stand.

    Attributes:
        example: Its number, which makes the same damage again.
        problem: What happened, in one line.
    """

    example: int
    problem: str


@dataclass
class Tally:
    """What became of a reader's examples."""

    examples: int = 0
    refused: int = 0
    accepted: int = 0
    longest: float = 0.0
    megabytes: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Adds the counts of another part of the same reader's examples."""
        self.examples += other.examples
        self.refused += other.refused
        self.accepted += other.accepted
        self.longest = max(self.longest, other.longest)
        self.megabytes = max(self.megabytes, other.megabytes)
        self.faults += other.faults


def run(name: str, first: int, count: int, *, most_faults: int = 20, table: str = "tests.fuzz.readers") -> Tally:
    """Tries the examples `first`, `first + 1`, ... of a reader of a module's `READERS`; stops early at so many faults.

    A process that dies or hangs is a fault of the example that it was at, and another goes on behind it.
    """
    total, end = Tally(), first + count
    while first < end and len(total.faults) < most_faults:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = _context().Process(target=_work, args=(table, name, first, end - first, theirs))
        process.start()
        theirs.close()
        first = _follow(process, ours, first, end, total, most_faults)
    return total


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.readers"])
    return context


def _follow(process: Any, pipe: Connection, first: int, end: int, total: Tally, most_faults: int) -> int:
    """Takes in what a process tells until it ends; returns the example to go on with."""
    at, started = first, False
    try:
        while pipe.poll(WALL_SECONDS if started else START_SECONDS):
            message, started = pipe.recv(), True
            if message is None:
                process.join()
                return end
            at, outcome = message
            if outcome is not None:
                _count(total, at, *outcome)
            if len(total.faults) >= most_faults:
                process.kill()
                process.join()
                return end
        problem = f"no answer for {WALL_SECONDS if started else START_SECONDS:.0f} s"
        process.kill()
    except EOFError:
        process.join()
        problem = f"more than {CPU_SECONDS:g} s of the processor" if process.exitcode == -signal.SIGPROF else ""
        problem = problem or f"the process ended with {process.exitcode}"
    process.join()
    total.examples += 1
    total.faults.append(Fault(at, problem))
    return at + 1


def _count(total: Tally, at: int, verdict: str, problem: str, seconds: float, megabytes: float) -> None:
    total.examples += 1
    total.refused += verdict == "refused"
    total.accepted += verdict == "accepted"
    total.longest, total.megabytes = max(total.longest, seconds), max(total.megabytes, megabytes)
    if verdict == "fault":
        total.faults.append(Fault(at, problem))


def _work(table: str, name: str, first: int, count: int, pipe: Connection) -> None:
    """In the process that may be lost: tells the number of each example before it, and the outcome after it."""
    reader = importlib.import_module(table).READERS[name]
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(1000)
    _limit_memory()
    with tempfile.TemporaryDirectory(prefix="nexus-fuzz-") as folder:
        try:
            bench = Bench(reader, Path(folder))
        except Exception as error:
            pipe.send((first, ("fault", f"the seed itself: {type(error).__name__}: {str(error)[:300]}", 0.0, 0.0)))
            pipe.send(None)
            return
        _lock_up(Path(folder))
        for at in range(first, first + count):
            pipe.send((at, None))
            pipe.send((at, bench.judge(at)))
    pipe.send(None)


class Bench:
    """A reader's seed in a folder, and what damage to it gives."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder / "seed"
        self.folder.mkdir()
        reader.seed(self.folder)
        self.whole = {file: (self.folder / file).read_bytes() for file in reader.files}
        reader.read(self.folder)  # the seed itself must be accepted
        self._clean_up()

    def damage(self, at: int) -> None:
        """Writes example `at`."""
        rng = random.Random(f"{self.reader.name} {at}")
        names = [*self.whole]
        victims = {rng.choice(names)} if rng.random() < 0.9 else set(names)
        for name in names:
            content = self.whole[name]
            content = mutate(content, self.reader.files[name], rng) if name in victims else content
            (self.folder / name).write_bytes(content)
        self.reader.repair(self.folder)

    def judge(self, at: int) -> tuple[str, str, float, float]:
        """Returns "refused", "accepted" or "fault", what is wrong, and what it took in seconds and megabytes."""
        self.damage(at)
        return self.judge_damaged()

    def judge_damaged(self) -> tuple[str, str, float, float]:
        """The same for what lies in the folder."""
        gc.collect(0)
        before, start = _memory(reset=True), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process, in C code too
        try:
            self.reader.read(self.folder)
            verdict, problem = "accepted", ""
        except BaseException as error:
            problem = self.problem(error)
            verdict = "fault" if problem else "refused"
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds, megabytes = time.process_time() - start, _memory() - before
        problem = problem or _trespass(self.folder.parent)
        if megabytes > MEGABYTES:
            problem = problem or f"{megabytes:.0f} MB more than before"
        self._clean_up()
        return ("fault" if problem else verdict), problem, seconds, megabytes

    def problem(self, error: BaseException) -> str:
        """What is wrong with an error; nothing if it is the library's own, in one line, and names a file."""
        message, kind = str(error), type(error)
        ours = kind is ValueError or (issubclass(kind, ValueError) and kind.__module__.startswith(("nexus", "mithril")))
        told = f"{kind.__name__}: {message[:300]!r}"
        if not ours:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{told} ({Path(frame.filename).name}:{frame.lineno})"
        if message.count("\n") > MOST_LINES and not kind.__module__.startswith("mithril"):
            return f"several lines: {told}"
        if len(message) > LONGEST_MESSAGE:
            return f"{len(message)} characters: {told}"
        names = [str(self.folder), *(Path(name).name for name in self.reader.files)]
        return "" if any(name in message for name in names) else f"names no file: {told}"

    def _clean_up(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)


def _limit_memory() -> None:
    pages = Path("/proc/self/statm")
    if pages.exists():
        mapped = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, resource.RLIM_INFINITY))


def _memory(reset: bool = False) -> float:
    """The most megabytes that this process has held, since the last reset where the system can do that."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    text = status.read_text()
    return int(text[text.index("VmHWM:") + 6 :].split()[0]) / 1024


_trespasses: list[str] = []


def _trespass(folder: Path) -> str:
    if MARKER.exists():
        shutil.rmtree(MARKER)
        return "code of the file ran"
    problem = "; ".join(_trespasses[:3])
    _trespasses.clear()
    return problem


def _lock_up(folder: Path) -> None:
    """Notes when this process writes outside of its folder, or starts another."""
    allowed = (str(folder), "/dev/null", "/proc/self/", f"{tempfile.gettempdir()}/torchinductor_")  # torch's own cache
    changes = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork"):
            _trespasses.append(f"{event} {arguments[:1]!r}")
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (writes or event in changes) and not _inside(arguments[0], allowed):
            _trespasses.append(f"{event} {arguments[0]!r}")

    sys.addaudithook(watch)


def _inside(path: Any, allowed: tuple[str, ...]) -> bool:
    if isinstance(path, int):
        return True
    text = path.decode(errors="replace") if isinstance(path, bytes) else str(path)
    return text.startswith(allowed) or not text.startswith("/")


def show_trace_of_hangs() -> None:
    """Prints where a process was when its time was over; for looking at one example."""
    faulthandler.register(signal.SIGPROF, all_threads=False, chain=True)
