"""What the loader's worker processes are reading, so that a file that ends one of them can be named."""

import multiprocessing
import os
import signal
import time
from typing import Any

_NOTHING = -1

_mine: Any = None  # in a worker process: the table, and this worker's row in it
_row = 0

PATIENCE = 3.0
"""Seconds until the pool, whose thread is told first, has let it be known how a process ended."""


class Watch:
    """A table in shared memory: for each worker process its number and the position that it reads.

    Args:
        context: How the processes are started.
        count: How many there are.
    """

    def __init__(self, context: Any, count: int) -> None:
        self.table = context.Array("q", [0, _NOTHING] * count)
        self._processes: dict[int | None, Any] = {}

    def look(self) -> None:
        """Takes note of the processes while they live: afterwards the system has forgotten them."""
        if not set(self.table[::2]) <= self._processes.keys():
            self._processes |= {one.pid: one for one in multiprocessing.active_children()}

    def dead(self) -> tuple[int, int] | None:
        """Returns exit code and position of the worker that ended by itself; None if nobody knows."""
        deadline = time.monotonic() + PATIENCE
        while True:
            codes = [self._processes[pid].exitcode if pid in self._processes else 0 for pid in self.table[::2]]
            for code, place in zip(codes, self.table[1::2]):
                if code is not None and code not in (0, -signal.SIGTERM):  # SIGTERM is how the others were ended
                    return code, place
            if None not in codes or time.monotonic() > deadline:
                return None
            time.sleep(0.02)


def begin(table: Any) -> None:
    """Gives this worker process a row of the table."""
    global _mine, _row
    with table.get_lock():
        _row = next(row for row in range(0, len(table), 2) if table[row] == 0)
        table[_row] = os.getpid()
    _mine = table


def note(index: int) -> None:
    """Says that this process reads a position now; outside of worker processes nobody asks."""
    if _mine is not None:
        _mine[_row + 1] = index


def reading() -> int:
    """Returns the position that this worker process reads; -1 if there is none."""
    return int(_mine[_row + 1]) if _mine is not None else _NOTHING


def cause_of_death(code: int) -> str:
    """Returns how a process ended: "was killed by SIGKILL"."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
