"""SIGTERM and SIGINT ask a run to save and stop; they do not break it off."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(SystemExit):
    """A run was asked to stop; it saved a checkpoint first. Uncaught, it ends the program with 128 + the signal.

    Attributes:
        message: What happened and how to go on.
        checkpoint: Where the run can be resumed from.
    """

    def __init__(self, signal_number: int, checkpoint: Path) -> None:
        super().__init__(128 + signal_number)
        name = signal.Signals(signal_number).name
        self.message = f"Stopped by {name}; the checkpoint {checkpoint} is saved. Resume the run to go on."
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        return self.message


class StopRequest:
    """Within the context the first SIGTERM or SIGINT is only noted; a second one acts as ever.

    Handlers can be set in the main thread alone; in another thread nothing is noted.

    Attributes:
        signal_number: The signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
