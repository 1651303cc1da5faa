// Masks as runs: a sorted Int32Array [start, end, start, end, ...] of places in the image, row by row, `end` not inside.
// What is here never changes its arguments, so that every step of the history can keep the masks of the one before.

export const EMPTY = new Int32Array(0);

// From lengths of runs, outside and inside in turn, as the server keeps them.
export function fromCounts(counts) {
  const runs = [];
  let place = 0;
  counts.forEach((count, index) => {
    if (index % 2 && count) runs.push(place, place + count);
    place += count;
  });
  return Int32Array.from(runs);
}

export function toCounts(runs, pixels) {
  const counts = [];
  let place = 0;
  for (let i = 0; i < runs.length; i += 2) {
    counts.push(runs[i] - place, runs[i + 1] - runs[i]);
    place = runs[i + 1];
  }
  if (place < pixels || !counts.length) counts.push(pixels - place);
  return counts;
}

// Merges two masks: a place is inside if `rule` says so of both.
function merge(a, b, rule) {
  const out = [];
  let i = 0, j = 0, inA = false, inB = false, inside = false;
  while (i < a.length || j < b.length) {
    const next = Math.min(i < a.length ? a[i] : Infinity, j < b.length ? b[j] : Infinity);
    if (a[i] === next) { inA = !inA; i++; }
    if (b[j] === next) { inB = !inB; j++; }
    if (rule(inA, inB) !== inside) { inside = !inside; out.push(next); }
  }
  return Int32Array.from(out);
}

export const union = (a, b) => !a.length ? b : !b.length ? a : merge(a, b, (x, y) => x || y);
export const minus = (a, b) => !a.length || !b.length ? a : merge(a, b, (x, y) => x && !y);
export const overlap = (a, b) => !a.length || !b.length ? EMPTY : merge(a, b, (x, y) => x && y);

export function area(runs) {
  let sum = 0;
  for (let i = 0; i < runs.length; i += 2) sum += runs[i + 1] - runs[i];
  return sum;
}

export function iou(a, b) {
  const both = area(overlap(a, b));
  return both / (area(a) + area(b) - both || 1);
}

// Number of the first entry above `place`: odd where the place is inside.
function after(runs, place) {
  let low = 0, high = runs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (runs[middle] <= place) low = middle + 1; else high = middle;
  }
  return low;
}

export const contains = (runs, place) => after(runs, place) % 2 === 1;

// Calls `draw(from, to)` for each part of a row that is inside, in columns.
export function inRow(runs, row, width, draw) {
  const begin = row * width, end = begin + width;
  for (let i = after(runs, begin) & ~1; i < runs.length && runs[i] < end; i += 2) {
    draw(Math.max(runs[i], begin) - begin, Math.min(runs[i + 1], end) - begin);
  }
}

// { left, top, right, bottom } around a mask; null for an empty one.
export function bounds(runs, width) {
  if (!runs.length) return null;
  const top = Math.floor(runs[0] / width), bottom = Math.floor((runs[runs.length - 1] - 1) / width) + 1;
  let left = width, right = 0;
  for (let i = 0; i < runs.length; i += 2) {
    const first = Math.floor(runs[i] / width), last = Math.floor((runs[i + 1] - 1) / width);
    left = Math.min(left, first === last ? runs[i] % width : 0);
    right = Math.max(right, first === last ? (runs[i + 1] - 1) % width + 1 : width);
  }
  return { left, top, right, bottom };
}

// What a round brush of `radius` pixels covers on its way from one point to another.
export function stroke(from, to, radius, width, height) {
  const out = [];
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + radius));
  for (let row = top; row <= bottom; row++) {
    const span = spanOf(from, to, radius, row + 0.5);
    if (!span) continue;
    const left = Math.max(0, Math.ceil(span[0] - 0.5)), right = Math.min(width, Math.floor(span[1] - 0.5) + 1);
    if (left < right) push(out, row * width + left, row * width + right);
  }
  return Int32Array.from(out);
}

function push(out, start, end) {
  if (out.length && out[out.length - 1] === start) out[out.length - 1] = end; else out.push(start, end);
}

// The columns that the brush covers at a height: those of both discs and of the band between them, which is convex.
function spanOf(from, to, radius, y) {
  let low = Infinity, high = -Infinity;
  for (const end of [from, to]) {
    const reach = radius * radius - (y - end.y) ** 2;
    if (reach < 0) continue;
    low = Math.min(low, end.x - Math.sqrt(reach));
    high = Math.max(high, end.x + Math.sqrt(reach));
  }
  const dx = to.x - from.x, dy = to.y - from.y, length = Math.hypot(dx, dy);
  if (length) {
    // The corners of the band, in order; where its edges pass this height is inside, too.
    const ox = -dy / length * radius, oy = dx / length * radius;
    const corners = [[from.x + ox, from.y + oy], [to.x + ox, to.y + oy], [to.x - ox, to.y - oy], [from.x - ox, from.y - oy]];
    corners.forEach(([x1, y1], index) => {
      const [x2, y2] = corners[(index + 1) % 4];
      if ((y1 <= y) === (y2 <= y)) return;
      const x = x1 + (y - y1) / (y2 - y1) * (x2 - x1);
      low = Math.min(low, x);
      high = Math.max(high, x);
    });
  }
  return low <= high ? [low, high] : null;
}
