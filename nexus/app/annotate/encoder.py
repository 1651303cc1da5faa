"""Images that are encoded once each, in the background, and what is asked of them.

One thread encodes: first the image that is looked at, then the next ones. A question about another image meanwhile is
answered beside it. What is kept is bounded: encoded images by their bytes, answers by their number.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Lock, Thread
from typing import Any, NamedTuple

import numpy as np

from nexus.app.annotate.limits import AHEAD, ANSWERS, ENCODED_BYTES
from nexus.data.images import Image
from nexus.tasks.clicks import Clicker, Clicks, Guess


class Answered(NamedTuple):
    """What a model says to clicks.

    Attributes:
        mask: (h, w) of the image.
        score: How good the model says that it is.
        guesses: How many guesses there were at the first click.
    """

    mask: np.ndarray
    score: float
    guesses: int


class Encoder:
    """Encodes the images that are looked at, and asks about them."""

    def __init__(
        self, clicker: Clicker, load: Callable[[int], Image], count: int, *, budget: int = ENCODED_BYTES
    ) -> None:
        """Starts the thread.

        Args:
            clicker: The model.
            load: Returns the image with a number.
            count: How many images there are.
            budget: Bytes of encoded images that are kept.
        """
        self._clicker, self._load, self._count, self._budget = clicker, load, count, budget
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._answers: OrderedDict[tuple[int, Clicks, int], list[Guess]] = OrderedDict()
        self._waiting: dict[int, Future[Any]] = {}
        self._looked_at, self._closed = 0, False
        self._change, self._asking = Condition(), Lock()
        self._refused: set[int] = set()
        self._thread = Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def look_at(self, number: int) -> Future[Any]:
        """Returns an image encoded, as soon as it is; it is the next one to be, and those after it follow."""
        with self._change:
            self._looked_at = number
            self._refused.clear()
            future = self._waiting.get(number) or Future()
            if number in self._kept:
                self._kept.move_to_end(number)
                future.set_result(self._kept[number])
            else:
                self._waiting[number] = future
            self._change.notify()
            return future

    def forget(self, number: int) -> None:
        """Says that nobody waits for an image any more; it is not encoded unless its turn comes."""
        with self._change:
            if self._looked_at != number:
                self._waiting.pop(number, None)

    def is_ready(self, number: int) -> bool:
        """Returns whether an image is encoded."""
        with self._change:
            return number in self._kept

    def ask(self, number: int, encoded: Any, clicks: Clicks, choice: int = 0) -> Answered:
        """Returns what the model says to clicks on an image.

        Each click is asked with what the model made of those before it, so the answer depends on the clicks alone.

        Raises:
            ValueError: Nothing was clicked on, or a place outside of the image.
        """
        with self._asking:
            first = 0 if clicks.box else 1
            guesses = self._guesses(number, encoded, Clicks(clicks.points[:first], clicks.box), 0, None)
            guess = guesses[min(choice, len(guesses) - 1)]
            for count in range(first + 1, len(clicks.points) + 1):
                guess = self._guesses(number, encoded, Clicks(clicks.points[:count], clicks.box), choice, guess)[0]
            return Answered(self._clicker.mask(encoded, guess), guess.score, len(guesses))

    def close(self) -> None:
        """Ends the thread after the image that it works on; who waits for another one is told."""
        with self._change:
            self._closed = True
            for future in self._waiting.values():
                future.cancel()
            self._change.notify()
        self._thread.join()

    def _guesses(self, number: int, encoded: Any, clicks: Clicks, choice: int, before: Guess | None) -> list[Guess]:
        key = (number, clicks, choice)
        if key not in self._answers:
            memory = None if before is None else before.memory
            self._answers[key] = list(self._clicker.ask(encoded, clicks, memory))
        self._answers.move_to_end(key)
        while len(self._answers) > ANSWERS:
            self._answers.popitem(last=False)
        return self._answers[key]

    def _run(self) -> None:
        while True:
            with self._change:
                while (number := self._next()) is None:
                    if self._closed:
                        return
                    self._change.wait()
                if self._closed:
                    return
            self._encode(number)

    def _next(self) -> int | None:
        """The image that is looked at, then those that somebody waits for, then the following ones that fit."""
        largest = max(map(self._clicker.size_of, self._kept.values()), default=0)
        window = self._window()
        fit = len(window) if largest == 0 else min(len(window), self._budget // largest)
        for number in (self._looked_at, *reversed(self._waiting), *window[1:fit]):
            if number not in self._kept and number not in self._refused:
                return number
        return None

    def _window(self) -> range:
        """The image that is looked at and those after it that are encoded ahead."""
        return range(self._looked_at, min(self._looked_at + 1 + AHEAD, self._count))

    def _encode(self, number: int) -> None:
        encoded, problem = None, None
        try:
            encoded = self._clicker.encode(self._load(number))
        except Exception as error:  # whatever it is, it is told to who waits for the image
            problem = error
        with self._change:
            future = self._waiting.pop(number, None)
            if problem is None:
                self._keep(number, encoded)
            else:
                self._refused.add(number)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if problem is None:
            future.set_result(encoded)
        else:
            future.set_exception(problem)

    def _keep(self, number: int, encoded: Any) -> None:
        """Keeps an encoded image, and drops others until they fit: the oldest, then the farthest ahead."""
        self._kept[number] = encoded
        window = self._window()
        others = [one for one in self._kept if one not in window] + list(reversed(window))
        total = sum(map(self._clicker.size_of, self._kept.values()))
        for one in others:
            if total > self._budget and one in self._kept and one not in (number, self._looked_at):
                total -= self._clicker.size_of(self._kept.pop(one))
