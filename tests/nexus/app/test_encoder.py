"""Images are encoded once, those that are looked at first, and what is kept is bounded."""

import threading
import time

import numpy as np
import pytest

from nexus.app.annotate.encoder import Encoder
from nexus.app.annotate.limits import AHEAD, ANSWERS
from nexus.tasks.clicks import Clicks
from tests.nexus.app.clicking import ByColour

SIDE = 8
BYTES = SIDE * SIDE * 3 * 4


@pytest.fixture
def started():
    """A function that returns an encoder of so many images; `gate` holds the thread before each of them."""
    running = []

    def start(count=20, *, budget=1 << 20, clicker=None, gate=None, broken=()):
        order = []

        def load(number):
            if gate is not None:
                gate.acquire()
            order.append(number)
            if number in broken:
                raise ValueError(f"image {number} is broken.")
            return np.full((SIDE, SIDE, 3), number, np.uint8)

        encoder = Encoder(clicker or ByColour(), load, count, budget=budget)
        running.append((encoder, gate))
        encoder.order = order
        return encoder

    yield start
    for encoder, gate in running:
        if gate is not None:
            gate.release(100)
        encoder.close()


def settled(encoder, count):
    """Waits until so many images were loaded, and a moment longer."""
    end = time.monotonic() + 10
    while len(encoder.order) < count:
        assert time.monotonic() < end, encoder.order
        time.sleep(0.005)
    time.sleep(0.05)


def test_the_first_image_and_those_after_it_are_encoded_once(started):
    encoder = started()
    settled(encoder, 1 + AHEAD)
    encoder.look_at(0).result(10)
    encoder.look_at(2).result(10)
    settled(encoder, 3 + AHEAD)
    assert encoder.order == list(range(3 + AHEAD))
    assert encoder.is_ready(3)


def test_the_image_that_is_looked_at_comes_first(started):
    gate = threading.Semaphore(0)
    encoder = started(gate=gate)
    time.sleep(0.05)
    first, second = encoder.look_at(7), encoder.look_at(12)
    gate.release(3)
    first.result(10), second.result(10)
    assert encoder.order[:3] == [0, 12, 7]


def test_nobody_waits_for_what_is_forgotten(started):
    gate = threading.Semaphore(0)
    encoder = started(count=30, gate=gate)
    time.sleep(0.05)
    encoder.look_at(20)
    encoder.look_at(9).cancelled()
    encoder.forget(20)
    gate.release(2 + AHEAD)
    settled(encoder, 2 + AHEAD)
    assert encoder.order == [0, *range(9, 10 + AHEAD)]


def test_what_is_kept_is_bounded(started):
    encoder = started(budget=3 * BYTES)
    for number in (0, 5, 10, 15):
        encoder.look_at(number).result(10)
        time.sleep(0.05)
        assert len(encoder._kept) <= 3
        assert encoder.is_ready(number)
    seen = len(encoder.order)
    time.sleep(0.1)
    assert len(encoder.order) == seen, "it goes on encoding what it has no room for"
    tight = started(budget=BYTES // 2)
    for number in (3, 4):
        tight.look_at(number).result(10)
    settled(tight, 3)
    assert tight.order == [0, 3, 4]


def test_a_broken_image_is_told_and_hinders_no_other(started):
    encoder = started(broken=(1,))
    with pytest.raises(ValueError, match="image 1 is broken"):
        encoder.look_at(1).result(10)
    encoder.look_at(2).result(10)
    with pytest.raises(ValueError, match="image 1 is broken"):
        encoder.look_at(1).result(10)


def test_answers_depend_on_the_clicks_alone(started):
    clicker = ByColour()
    encoder = started(count=1, clicker=clicker)
    encoded = encoder.look_at(0).result(10)
    clicks = Clicks(((1.0, 1.0, 1), (6.0, 6.0, 0)))
    first = encoder.ask(0, encoded, clicks)
    assert first.guesses == 3
    assert clicker.asked == 2
    again = encoder.ask(0, encoded, clicks)
    assert np.array_equal(first.mask, again.mask)
    assert clicker.asked == 2
    assert encoder.ask(0, encoded, Clicks(clicks.points, (0.0, 0.0, 4.0, 4.0))).guesses == 1
    assert clicker.asked == 5
    assert encoder.ask(0, encoded, clicks, choice=9).score == first.score
    for place in range(2 * ANSWERS):
        encoder.ask(0, encoded, Clicks(((place / (2 * ANSWERS), 1.0, 1),)))
    assert len(encoder._answers) == ANSWERS


def test_who_waits_when_it_ends_is_told(started):
    gate = threading.Semaphore(0)
    encoder = started(gate=gate)
    time.sleep(0.05)
    waiting = encoder.look_at(9)
    threading.Timer(0.05, gate.release).start()
    encoder.close()
    assert waiting.cancelled()
