"""Masks as run lengths, the way COCO's files hold them, and their outlines.

Runs go down the columns, and the first counts pixels that are not in the mask. Polygons become masks by COCO's own
rule, so that areas and overlaps are those of its tools: vertices are rounded to a fifth of a pixel, and a column
changes between outside and inside where the outline crosses its middle.

Dims: h w pixels, n runs, v vertices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

SCALE = 5
"""Parts of a pixel that COCO rounds vertices to."""


@dataclass(frozen=True, eq=False)
class RLE:
    """A mask of `height` x `width` pixels.

    Attributes:
        counts: Lengths of runs in column order; they alternate between outside and inside, and begin outside.
    """

    height: int
    width: int
    counts: Int[np.ndarray, " n"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RLE) and self.size == other.size and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.size, self.counts.tobytes()))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(self.counts[1::2].sum())

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The smallest box (x1, y1, x2, y2) around all pixels inside; zeros for an empty mask."""
        mask = self.decode()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return 0.0, 0.0, 0.0, 0.0
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)

    def decode(self) -> Bool[np.ndarray, "h w"]:
        """The mask pixel by pixel."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.width, self.height).T

    def to_json(self) -> dict[str, object]:
        """As COCO's files hold it: the size, and the counts as text."""
        return {"size": [self.height, self.width], "counts": write_counts(self.counts)}


def encode(mask: Bool[np.ndarray, "h w"]) -> RLE:
    """The runs of a mask."""
    column_order = np.asarray(mask, dtype=bool).T.reshape(-1)
    changes = np.flatnonzero(np.diff(column_order, prepend=False))
    return from_changes(changes, mask.shape[0], mask.shape[1])


def from_changes(changes: Int[np.ndarray, " n"], height: int, width: int) -> RLE:
    """The runs of a mask that turns between outside and inside at these rising places in column order."""
    counts = np.diff(np.concatenate([[0], changes, [height * width]])).astype(np.int64)
    return RLE(height, width, counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts)


def write_counts(counts: Int[np.ndarray, " n"]) -> str:
    """The counts as COCO's text: differences to the count two before, five bits in a character, the lowest first."""
    values = np.asarray(counts, dtype=np.int64).copy()
    values[3:] -= np.asarray(counts, dtype=np.int64)[1:-2]
    text = []
    for value in values.tolist():
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return "".join(text)


def read_counts(text: str) -> Int[np.ndarray, " n"]:
    """The counts that COCO's text means.

    Raises:
        ValueError: It holds a character that is none of its alphabet, or breaks off.
    """
    counts: list[int] = []
    value = shift = 0
    for place, character in enumerate(text):
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"counts hold {character!r} at place {place}, which no run length is written with")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts break off inside a number")
    if any(abs(count) > 1 << 40 for count in counts):
        raise ValueError("counts are longer than any image")
    return np.array(counts, dtype=np.int64)


def from_polygons(rings: Sequence[Float[np.ndarray, "v 2"]], height: int, width: int) -> RLE:
    """The union of the insides of several outlines, x and y in pixels."""
    parts = [from_changes(_crossings(ring, height, width), height, width) for ring in rings]
    if len(parts) == 1:
        return parts[0]
    mask = np.zeros((height, width), dtype=bool)
    for part in parts:
        mask |= part.decode()
    return encode(mask)


def _crossings(ring: Float[np.ndarray, "v 2"], height: int, width: int) -> Int[np.ndarray, " n"]:
    """Places in column order where the inside begins or ends."""
    x, y = _outline_points(ring)
    moves = np.flatnonzero(x[1:] != x[:-1])
    before, after = moves, moves + 1
    column = (np.where(x[after] < x[before], x[after], x[after] - 1) + 0.5) / SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(y[after], y[before]) + 0.5) / SCALE - 0.5, 0, height))
    used = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    places = column[used].astype(np.int64) * height + row[used].astype(np.int64)
    places, times = np.unique(places, return_counts=True)
    return places[(times % 2 == 1) & (places < height * width)]


def _outline_points(ring: Float[np.ndarray, "v 2"]) -> tuple[np.ndarray, np.ndarray]:
    """Every point of the outline on the fine grid, from each vertex to the next, both included.

    A line steps by one along its longer axis. It is always counted from its lower end, so that a way there and back
    has the same points and cancels.
    """
    corners = (SCALE * np.asarray(ring, dtype=np.float64) + 0.5).astype(np.int64)
    start, end = corners, np.roll(corners, -1, axis=0)
    reach = np.abs(end - start)
    flat = reach[:, 0] >= reach[:, 1]
    along = np.where(flat, 0, 1)
    edges = np.arange(len(corners))
    flipped = start[edges, along] > end[edges, along]
    low, high = np.where(flipped[:, None], end, start), np.where(flipped[:, None], start, end)
    steps = reach.max(axis=1)
    slope = (high - low)[edges, 1 - along] / np.maximum(steps, 1)
    edge = np.repeat(edges, steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    step = np.where(flipped[edge], steps[edge] - step, step)
    main = low[edge, along[edge]] + step
    other = (low[edge, 1 - along[edge]] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(flat[edge], main, other), np.where(flat[edge], other, main)


def outline(rle: RLE) -> Float[np.ndarray, "v 2"]:
    """One ring along the edges of the pixels that gives the mask back exactly, parts and holes included.

    Parts and holes hang together by bridges without width, which are walked there and back.
    """
    loops = _loops(rle.decode())
    if not loops:
        return np.zeros((0, 2))
    ring = list(loops[0])
    for loop in loops[1:]:
        ring += [loops[0][0], *loop, loop[0]]
    return np.array(ring, dtype=np.float64)


def _loops(mask: Bool[np.ndarray, "h w"]) -> list[list[tuple[int, int]]]:
    """The closed borders of a mask as corners (x, y), with the inside to the right of the way."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    ways: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = [  # the neighbour outside, and the two corners of the pixel that the side joins
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ]
    for outside, begin, finish in sides:
        for y, x in zip(*(places.tolist() for places in np.nonzero(inner & ~outside))):
            ways.setdefault((x + begin[0], y + begin[1]), []).append((x + finish[0], y + finish[1]))
    loops = []
    while ways:
        first = next(iter(ways))
        loop, here = [], first
        while here != first or not loop:
            loop.append(here)
            there = ways[here].pop()
            if not ways[here]:
                del ways[here]
            here = there
        loops.append(_corners_only(loop))
    return loops


def _corners_only(loop: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Leaves out points on straight lines."""
    around = zip(loop[-1:] + loop[:-1], loop, loop[1:] + loop[:1])
    return [here for before, here, after in around if before[0] != after[0] and before[1] != after[1]]
