"""Resizing through a cubic spline, smoothed beforehand where pixels are lost: what scikit-image does at order 3.

Unser, "Splines: A Perfect Fit for Signal and Image Processing", 1999. An image is mirrored about its outermost pixels.
Unlike Pillow's bicubic filter, the curve passes through every pixel.

Dims: n old pixels along a side, m numbers beside each other, c channels, h w pixels.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

POLE = 3**0.5 - 2
"""Of the recursive filter that turns pixels into the weights of cubic B-splines (Unser, Box 2)."""
REACH = 4.0
"""Standard deviations at which a Gaussian is cut off."""


def resize_by_spline(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns an image (h, w, c) at `size` (height, width), within the range of its own values.

    Of uint8 the fraction of a grey level is dropped; other types give float64.
    """
    found = image.astype(np.float64)
    for axis, length in enumerate(size):
        lines = np.moveaxis(found, axis, 0)
        resized = _resize_lines(lines.reshape(len(lines), -1), length)
        found = np.moveaxis(resized.reshape(length, *lines.shape[1:]), 0, axis)
    found = np.clip(found, image.min(), image.max())
    return found.astype(np.uint8) if image.dtype == np.uint8 else found


def _resize_lines(lines: Float[np.ndarray, "n m"], length: int) -> Float[np.ndarray, "new m"]:
    share = len(lines) / length
    if len(lines) == 1:
        return lines.repeat(length, axis=0)
    weights = _spline_weights(_smoothed(lines, max(0.0, (share - 1) / 2)))
    places = (np.arange(length) + 0.5) * share - 0.5
    before = np.floor(places).astype(int)
    taps = _cubic(places - before)
    near = (weights[mirrored(before + shift, len(lines))] for shift in (-1, 0, 1, 2))
    return _weighted(zip(taps, near))


def _smoothed(lines: Float[np.ndarray, "n m"], deviation: float) -> Float[np.ndarray, "n m"]:
    """Convolves with a Gaussian of this standard deviation in pixels."""
    radius = int(REACH * deviation + 0.5)
    if not radius:
        return lines
    shifts = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (shifts / deviation) ** 2)
    wide = lines[mirrored(np.arange(-radius, len(lines) + radius), len(lines))]
    return _weighted((share[None], wide[at : at + len(lines)]) for at, share in enumerate(kernel / kernel.sum()))


def _weighted(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Float[np.ndarray, "k m"]:
    """Returns the sum of lines (k, m), each times its weight (k)."""
    total: np.ndarray = np.zeros(())
    for weight, lines in parts:
        total = total + weight[:, None] * lines
    return total


def mirrored(places: Int[np.ndarray, "k"], length: int) -> Int[np.ndarray, "k"]:
    """Returns the pixel that stands at each place, in or outside of a line of `length` pixels: c b a b c d c b a."""
    period = max(1, 2 * length - 2)
    inside = places % period
    return np.minimum(inside, period - inside)


def _spline_weights(lines: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Returns the weights of the B-splines whose sum passes through all pixels: one filter forwards, one backwards."""
    weights = lines * (6.0 if len(lines) > 1 else 1.0)
    count, period = len(lines), 2 * len(lines) - 2
    powers = POLE ** np.arange(period)
    powers = powers[np.abs(powers) > np.finfo(float).tiny]
    start = mirrored(np.arange(len(powers)), count)
    weights[0] = powers @ weights[start] / (1 - POLE**period)
    for at in range(1, count):
        weights[at] += POLE * weights[at - 1]
    weights[-1] = (POLE * weights[-2] + weights[-1]) * POLE / (POLE**2 - 1)
    for at in range(count - 2, -1, -1):
        weights[at] = POLE * (weights[at + 1] - weights[at])
    return weights


def _cubic(share: Float[np.ndarray, "new"]) -> list[np.ndarray]:
    """Returns the cubic B-spline at the four pixels around a place that is `share` of a pixel behind the second."""
    rest = 1 - share
    inner = [(4 + 3 * one * one * (one - 2)) / 6 for one in (share, rest)]
    first = rest**3 / 6
    return [first, *inner, 1 - first - sum(inner)]
