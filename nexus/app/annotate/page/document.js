// What is marked in one image, and how it came to be so. Each step makes a new state; the old ones are the history.
//
// An object is { label, base, added, removed, mask, points, box, choice, guesses, score }: `base` is the model's mask,
// `added` and `removed` what was painted and erased by hand, which stays when the model is asked again.

import { EMPTY, contains, fromCounts, minus, toCounts, union } from "./runs.js";

const LONGEST = 200;   // steps that can be undone

export const newObject = (label) => withMask({
  label, base: EMPTY, added: EMPTY, removed: EMPTY, points: [], box: null, choice: 0, guesses: 1, score: null, track: 0,
});

export function withMask(object) {
  return { ...object, mask: minus(union(object.base, object.added), object.removed) };
}

export class Document {
  constructor(kept) {
    Object.assign(this, { width: kept.width, height: kept.height, revision: kept.revision, done: kept.done });
    this.state = { objects: kept.objects.map(fromKept), active: -1 };
    this.past = [];
    this.future = [];
    this.changes = 0;   // counts what is to be saved
  }

  get objects() { return this.state.objects; }
  get activeIndex() { return this.state.active; }
  get active() { return this.state.objects[this.state.active] ?? null; }

  // Makes a state the present one, and the present one a step to go back to.
  #commit(state) {
    this.past.push(this.state);
    if (this.past.length > LONGEST) this.past.shift();
    this.future = [];
    this.state = state;
    this.changes++;
  }

  // Takes `object` for the active one, or adds it where none is active. One without a pixel is taken out.
  put(object, at = this.state.active) {
    const objects = [...this.state.objects];
    const index = at < 0 ? objects.length : at;
    if (object.mask.length) objects[index] = object;
    else objects.splice(index, 1);
    this.#commit({ objects, active: object.mask.length ? index : -1 });
  }

  remove(index) {
    const objects = this.state.objects.filter((_, place) => place !== index);
    this.#commit({ objects, active: -1 });
  }

  relabel(index, label) {
    if (this.state.objects[index].label === label) return;
    const objects = this.state.objects.map((one, place) => place === index ? { ...one, label } : one);
    this.#commit({ ...this.state, objects });
  }

  // Puts an object over or under its neighbour.
  move(index, by) {
    const objects = [...this.state.objects], to = index + by;
    if (to < 0 || to >= objects.length) return;
    [objects[index], objects[to]] = [objects[to], objects[index]];
    this.#commit({ objects, active: to });
  }

  select(index) {
    this.state = { ...this.state, active: index };
  }

  setDone(done) {
    if (this.done === done) return;
    this.done = done;
    this.changes++;
  }

  undo() { return this.#step(this.past, this.future); }
  redo() { return this.#step(this.future, this.past); }

  #step(from, to) {
    if (!from.length) return false;
    to.push(this.state);
    this.state = from.pop();
    this.changes++;
    return true;
  }

  // The topmost object at a place of the image; -1 where there is none.
  at(x, y) {
    const place = Math.floor(y) * this.width + Math.floor(x);
    for (let index = this.objects.length - 1; index >= 0; index--) {
      if (contains(this.objects[index].mask, place)) return index;
    }
    return -1;
  }

  toKept() {
    const pixels = this.width * this.height;
    return {
      version: 1, height: this.height, width: this.width, done: this.done, revision: this.revision,
      objects: this.objects.map((one) => toKept(one, pixels)),
    };
  }
}

function fromKept(kept) {
  const runs = (counts) => counts ? fromCounts(counts) : EMPTY;
  const mask = runs(kept.counts), added = runs(kept.added);
  return {
    label: kept.class, mask, base: minus(mask, added), added, removed: runs(kept.removed),
    points: kept.points ?? [], box: kept.box ?? null, choice: kept.choice ?? 0, guesses: 1, score: null,
    track: kept.track ?? 0,
  };
}

function toKept(one, pixels) {
  const kept = { class: one.label, counts: toCounts(one.mask, pixels) };
  if (one.points.length) kept.points = one.points;
  if (one.box) kept.box = one.box;
  if (one.choice) kept.choice = one.choice;
  if (one.track) kept.track = one.track;
  if (one.added.length) kept.added = toCounts(one.added, pixels);
  if (one.removed.length) kept.removed = toCounts(one.removed, pixels);
  return kept;
}
