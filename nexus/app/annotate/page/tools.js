// What the pointer does: clicks, boxes, the brush and the eraser, moving the view. Pens and fingers work as a mouse does;
// two fingers move and zoom.

import { newObject, withMask } from "./document.js";
import { minus, stroke, union } from "./runs.js";

const NEAR = 9;          // pixels of the screen: a click this near to a point takes the point away
const SMALLEST_BOX = 4;  // pixels of the screen
export const BRUSH = { least: 1, most: 200, first: 12 };   // pixels of the screen, radius

export class Tools {
  constructor(view, app) {
    this.view = view;
    this.app = app;
    this.name = "click";
    this.radius = BRUSH.first;
    this.adds = true;      // whether a left click, or the finger, says "of the object"
    this.pointers = new Map();
    this.drag = null;
    this.moving = false;   // Space is held
    const stage = view.stage;
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#up(event));
    stage.addEventListener("pointercancel", (event) => this.#cancel(event));
    stage.addEventListener("pointerleave", () => { this.hover = null; view.draw(); });
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    view.sketch = (context) => this.#sketch(context);
  }

  choose(name) {
    this.name = name;
    this.view.stage.dataset.tool = name;
    this.view.draw();
  }

  resize(factor) {
    this.radius = Math.min(BRUSH.most, Math.max(BRUSH.least, this.radius * factor));
    this.view.draw();
  }

  // Gives up what is being drawn.
  stop() {
    const had = this.drag !== null;
    this.drag = null;
    this.view.draw();
    return had;
  }

  #down(event) {
    if (!this.app.doc || event.target.closest("button, input, dialog")) return;
    event.preventDefault();
    document.activeElement?.blur();
    this.view.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    const at = this.view.toImage(event);
    if (this.pointers.size === 2) this.drag = { kind: "pinch" };
    else if (event.button === 1 || this.moving) this.drag = { kind: "pan" };
    else if (event.ctrlKey || event.metaKey || event.altKey) this.app.select(this.app.doc.at(at.x, at.y));
    else this.#begin(event, at);
  }

  #begin(event, at) {
    const kind = this.name === "move" ? "pan" : this.name;
    this.drag = { kind, button: event.button, from: at, to: at, moved: false };
    if (kind === "brush" || kind === "eraser") this.#paint(at, at);
  }

  #move(event) {
    this.hover = event;
    const before = this.pointers.get(event.pointerId);
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, event);
    if (this.drag && before) this.#continue(before, event);
    this.view.draw();
  }

  #continue(before, event) {
    const drag = this.drag, at = this.view.toImage(event);
    drag.moved ||= Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY) > 0;
    if (drag.kind === "pinch") this.#pinch(before, event);
    else if (drag.kind === "pan") this.view.panBy(event.clientX - before.clientX, event.clientY - before.clientY);
    else if (drag.kind === "brush" || drag.kind === "eraser") this.#paint(drag.to, at);
    drag.to = at;
  }

  #pinch(before, event) {
    const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (!other) return;
    const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const box = this.view.stage.getBoundingClientRect();
    this.view.panBy((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
    this.view.zoomBy(distance(event) / distance(before), (event.clientX + other.clientX) / 2 - box.left,
      (event.clientY + other.clientY) / 2 - box.top);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    const drag = this.drag;
    if (!drag || this.pointers.size) return;
    this.drag = null;
    if (drag.kind === "click") this.#click(drag);
    else if (drag.kind === "box") this.#box(drag);
    else if (drag.kind === "pan" && this.name === "move" && !drag.moved) this.app.select(this.app.doc.at(drag.from.x, drag.from.y));
    else if (drag.object) this.app.drawn(drag.object);
    this.view.draw();
  }

  #cancel(event) {
    this.pointers.delete(event.pointerId);
    this.stop();
  }

  #click({ from, button }) {
    if (!this.view.contains(from)) return;
    const near = (this.app.doc.active?.points ?? []).findIndex(([x, y]) =>
      Math.hypot(x - from.x, y - from.y) * this.view.zoom < NEAR);
    if (near >= 0) return void this.app.unpoint(near);
    const adds = button === 2 ? !this.adds : this.adds;
    this.app.point([round(from.x), round(from.y), adds ? 1 : 0]);
  }

  #box({ from, to }) {
    const a = this.view.clamped(from), b = this.view.clamped(to);
    const box = [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)].map(round);
    const least = SMALLEST_BOX / this.view.zoom;
    if (box[2] - box[0] >= least && box[3] - box[1] >= least) this.app.box(box);
  }

  // Paints on a copy of the active object, which becomes one step of the history when the pointer is lifted.
  #paint(from, to) {
    const { doc } = this.app, drag = this.drag;
    const object = drag.object ?? doc.active ?? (drag.kind === "brush" ? newObject(this.app.label) : null);
    if (!object) return void this.app.say("There is nothing to erase from: choose an object first (V, or the list).");
    const { width, height } = this.view.size;
    const covered = stroke(from, to, Math.max(this.radius / this.view.zoom, 0.75), width, height);
    const erases = (drag.kind === "eraser") !== (drag.button === 2);
    const [grown, shrunk] = erases ? ["removed", "added"] : ["added", "removed"];
    drag.object = withMask({ ...object, [grown]: union(object[grown], covered), [shrunk]: minus(object[shrunk], covered) });
    this.app.preview(drag.object);
  }

  #wheel(event) {
    event.preventDefault();
    if (event.shiftKey && (this.name === "brush" || this.name === "eraser")) {
      this.resize(Math.exp(-(event.deltaY || event.deltaX) / 400));
      return this.app.brushChanged();
    }
    const box = this.view.stage.getBoundingClientRect();
    const unit = event.deltaMode === 1 ? 16 : 1;
    this.view.zoomBy(Math.exp(-event.deltaY * unit / 400), event.clientX - box.left, event.clientY - box.top);
  }

  #sketch(context) {
    if (this.drag?.kind === "box" && this.drag.moved) {
      const a = this.view.clamped(this.drag.from), b = this.view.clamped(this.drag.to);
      this.view.drawBox(context, [a.x, a.y, b.x, b.y], true);
    }
    if (!this.hover) return;
    const box = this.view.stage.getBoundingClientRect();
    const x = this.hover.clientX - box.left, y = this.hover.clientY - box.top;
    if (this.name === "box" && !this.drag) this.#cross(context, x, y);
    if (this.name !== "brush" && this.name !== "eraser") return;
    for (const [color, width] of [["#000a", 3], [this.name === "brush" ? "#fff" : "#ff8f8f", 1.5]]) {
      context.beginPath();
      context.arc(x, y, this.radius, 0, 2 * Math.PI);
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke();
    }
  }

  #cross(context, x, y) {
    context.fillStyle = "#fff8";
    context.fillRect(0, y - 0.5, this.view.stage.clientWidth, 1);
    context.fillRect(x - 0.5, 0, 1, this.view.stage.clientHeight);
  }
}

// Places are kept to a hundredth of a pixel.
function round(value) {
  return Math.round(value * 100) / 100;
}
