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

MAX_BITS = 45
"""Of a number in COCO's text: more than the pixels of any image need, so that no number grows without end."""

CHUNK = 500_000
"""Points of an outline that are worked on at once."""


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
        ends = np.cumsum(self.counts)
        begin, end = ends[0:-1:2], ends[1::2] - 1  # first and last pixel of each run inside
        begin, end = begin[end >= begin], end[end >= begin]
        if not len(begin):
            return 0.0, 0.0, 0.0, 0.0
        whole_column = (begin // self.height != end // self.height).any()
        top = 0 if whole_column else (begin % self.height).min()
        bottom = self.height - 1 if whole_column else (end % self.height).max()
        return float(begin[0] // self.height), float(top), float(end[-1] // self.height + 1), float(bottom + 1)

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


def read_counts(text: str) -> list[int]:
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
        if shift > MAX_BITS:
            raise ValueError("counts are longer than any image")
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts break off inside a number")
    return counts


def from_polygons(rings: Sequence[Float[np.ndarray, "v 2"]], height: int, width: int) -> RLE:
    """The union of the insides of several outlines, x and y in pixels."""
    parts = [_crossings(ring, height, width) for ring in rings]
    if len(parts) == 1:
        return from_changes(parts[0], height, width)
    return from_changes(_union(parts, height * width), height, width)


def _union(parts: Sequence[Int[np.ndarray, " n"]], pixels: int) -> Int[np.ndarray, " n"]:
    """Places where the union of masks begins or ends, of the places where each does; no pixel is touched."""
    closed = [np.append(part, pixels) if len(part) % 2 else part for part in parts]
    places = np.concatenate([np.zeros(0, dtype=np.int64), *closed])
    steps = np.concatenate([np.zeros(0, dtype=np.int64), *(1 - 2 * (np.arange(len(part)) % 2) for part in closed)])
    places, where = np.unique(places, return_inverse=True)
    depth = np.cumsum(np.bincount(where, steps, len(places)).astype(np.int64))
    turns = (depth > 0) != (np.concatenate([[0], depth])[:-1] > 0)
    return places[turns & (places < pixels)]


def outline_length(ring: Float[np.ndarray, "v 2"]) -> float:
    """How long a closed outline is, in pixels along the longer axis of each edge."""
    return float(np.abs(np.roll(ring, -1, axis=0) - ring).max(axis=1).sum())


def _crossings(ring: Float[np.ndarray, "v 2"], height: int, width: int) -> Int[np.ndarray, " n"]:
    """Places in column order where the inside begins or ends: where the outline crosses them an odd number of times."""
    start = (SCALE * np.asarray(ring, dtype=np.float64) + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    length = np.cumsum(np.abs(end - start).max(axis=1) + 1) if len(start) else np.zeros(0)
    chunks = np.split(np.arange(len(start)), np.flatnonzero(np.diff(length // CHUNK)) + 1)
    parts = [_edge_crossings(start[edges], end[edges], height, width) for edges in chunks]
    places, times = np.unique(np.concatenate(parts), return_counts=True)
    return places[(times % 2 == 1) & (places < height * width)]


def _edge_crossings(start: np.ndarray, end: np.ndarray, height: int, width: int) -> Int[np.ndarray, " n"]:
    """Places that edges cross, each time anew. From one edge to the next nothing is crossed: they share a point."""
    x, y = _outline_points(start, end)
    moves = np.flatnonzero(x[1:] != x[:-1])
    before, after = moves, moves + 1
    column = (np.where(x[after] < x[before], x[after], x[after] - 1) + 0.5) / SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(y[after], y[before]) + 0.5) / SCALE - 0.5, 0, height))
    used = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    return column[used].astype(np.int64) * height + row[used].astype(np.int64)


def _outline_points(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every point of edges of an outline on the fine grid, from each vertex to the next, both included.

    A line steps by one along its longer axis. It is always counted from its lower end, so that a way there and back
    has the same points and cancels.
    """
    reach = np.abs(end - start)
    flat = reach[:, 0] >= reach[:, 1]
    along = np.where(flat, 0, 1)
    edges = np.arange(len(start))
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
