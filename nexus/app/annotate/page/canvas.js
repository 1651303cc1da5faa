// The picture, the masks over it, and what is being drawn. Masks are painted at the screen's resolution, so that their
// edges are sharp at every zoom, and the cost does not depend on the size of the image.

import { bounds, inRow } from "./runs.js";

const MOST_PIXELS = 3e6;   // of the canvases; a finer screen gets coarser masks
const SQUARES = 3;         // from this zoom on, pixels are shown as squares
const NEAREST = 40, FARTHEST = 1 / 4;
const BAR = 44;            // height of the bar over the lower edge

export class View {
  constructor(stage) {
    this.stage = stage;
    [this.pictureCanvas, this.maskCanvas, this.markCanvas] = stage.querySelectorAll("canvas");
    this.picture = null;
    this.size = { width: 1, height: 1 };
    this.zoom = 1;      // screen pixels (of CSS) for a pixel of the image
    this.left = 0;      // where the image's corner is, in screen pixels
    this.top = 0;
    this.opacity = 0.45;
    this.scene = { objects: [], active: -1, hidden: false, colors: new Map() };
    this.sketch = null; // draws what is not yet part of the scene: (context, view)
    this.waiting = false;
    new ResizeObserver(() => this.#resize()).observe(stage);
  }

  // Shows another picture, whole.
  show(picture, size) {
    this.picture?.close?.();
    this.picture = picture;
    this.size = size;
    this.fit();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const margin = Math.min(16, width / 40), below = BAR + 2 * margin;
    this.zoom = Math.min((width - 2 * margin) / this.size.width, (height - margin - below) / this.size.height, NEAREST);
    this.fitted = this.zoom;
    this.left = (width - this.size.width * this.zoom) / 2;
    this.top = margin + (height - margin - below - this.size.height * this.zoom) / 2;
    this.draw();
  }

  zoomBy(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const zoom = Math.min(NEAREST, Math.max(this.fitted * FARTHEST, this.zoom * factor));
    this.left = x - (x - this.left) * zoom / this.zoom;
    this.top = y - (y - this.top) * zoom / this.zoom;
    this.zoom = zoom;
    this.draw();
  }

  panBy(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.draw();
  }

  // A place on the screen as a place in the image, in its pixels; it may be outside of it.
  toImage(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: (event.clientX - box.left - this.left) / this.zoom, y: (event.clientY - box.top - this.top) / this.zoom };
  }

  toScreen(x, y) {
    return { x: x * this.zoom + this.left, y: y * this.zoom + this.top };
  }

  clamped({ x, y }) {
    return { x: Math.min(this.size.width, Math.max(0, x)), y: Math.min(this.size.height, Math.max(0, y)) };
  }

  contains({ x, y }) {
    return x >= 0 && y >= 0 && x < this.size.width && y < this.size.height;
  }

  // Draws everything with the next frame of the screen.
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#drawPicture();
      this.#drawMasks();
      this.#drawMarks();
    });
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    this.ratio = Math.min(window.devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (width * height)));
    for (const canvas of [this.pictureCanvas, this.maskCanvas, this.markCanvas]) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    this.fit();
  }

  #context(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    return context;
  }

  #drawPicture() {
    const context = this.#context(this.pictureCanvas);
    if (!this.picture) return;
    context.imageSmoothingEnabled = this.zoom < SQUARES;
    context.imageSmoothingQuality = "high";
    const { width, height } = this.size;
    context.drawImage(this.picture, this.left, this.top, width * this.zoom, height * this.zoom);
  }

  #drawMasks() {
    const { width, height } = this.maskCanvas;
    const context = this.maskCanvas.getContext("2d");
    const { objects, active, hidden, colors } = this.scene;
    context.clearRect(0, 0, width, height);
    if (hidden || !objects.length || !width || !height) return;
    const numbers = this.#numbers(objects, active, width, height);
    const image = context.createImageData(width, height);
    paint(new Uint32Array(image.data.buffer), numbers, width, height, this.#palette(objects, active, colors));
    context.putImageData(image, 0, 0);
  }

  // For each pixel of the canvas the number of the object that is seen there, from 1; the active one lies on top.
  #numbers(objects, active, width, height) {
    const numbers = new Uint16Array(width * height);
    const scale = this.zoom * this.ratio, left = this.left * this.ratio, top = this.top * this.ratio;
    const order = objects.map((_, index) => index).filter((index) => index !== active);
    for (const index of active < 0 ? order : [...order, active]) {
      const box = bounds(objects[index].mask, this.size.width);
      if (!box) continue;
      const first = Math.max(0, Math.round(box.top * scale + top)), last = Math.min(height, Math.round(box.bottom * scale + top));
      for (let row = first; row < last; row++) {
        const y = Math.floor((row + 0.5 - top) / scale);
        inRow(objects[index].mask, y, this.size.width, (from, to) => {
          const start = Math.max(0, Math.round(from * scale + left)), end = Math.min(width, Math.round(to * scale + left));
          if (start < end) numbers.fill(index + 1, row * width + start, row * width + end);
        });
      }
    }
    return numbers;
  }

  // The colours inside and on the edge of each object, as the canvas holds them (ABGR).
  #palette(objects, active, colors) {
    return objects.map((one, index) => {
      const [red, green, blue] = channels(colors.get(one.label) ?? "#ffffff");
      const color = (alpha) => (alpha << 24 | blue << 16 | green << 8 | red) >>> 0;
      const strength = active < 0 || index === active ? this.opacity : this.opacity * 0.75;
      return { inside: color(Math.round(255 * strength)), edge: index === active ? 0xffffffff : color(255) };
    });
  }

  #drawMarks() {
    const context = this.#context(this.markCanvas);
    const { objects, active, hidden, pending } = this.scene;
    const one = objects[active];
    const points = [...(one?.points ?? []), ...(pending?.points ?? [])];
    const box = pending?.box ?? one?.box;
    if (!hidden && box) this.drawBox(context, box, Boolean(pending?.box));
    if (!hidden) points.forEach(([x, y, label]) => drawPoint(context, this.toScreen(x, y), label));
    this.sketch?.(context, this);
  }

  drawBox(context, [x1, y1, x2, y2], dashed) {
    const a = this.toScreen(x1, y1), b = this.toScreen(x2, y2);
    context.setLineDash(dashed ? [6, 4] : []);
    for (const [color, width] of [["#000a", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
    }
    context.setLineDash([]);
  }
}

// Paints objects by their numbers; the edge of one is two pixels wide, inside of it.
function paint(pixels, numbers, width, height, palette) {
  for (let row = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, at++) {
      const number = numbers[at];
      if (!number) continue;
      const onEdge = column < 2 || row < 2 || column > width - 3 || row > height - 3
        ? false
        : numbers[at - 1] !== number || numbers[at + 1] !== number || numbers[at - 2] !== number || numbers[at + 2] !== number
          || numbers[at - width] !== number || numbers[at + width] !== number
          || numbers[at - 2 * width] !== number || numbers[at + 2 * width] !== number;
      pixels[at] = onEdge ? palette[number - 1].edge : palette[number - 1].inside;
    }
  }
}

export function channels(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}

function drawPoint(context, { x, y }, label) {
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  context.fillStyle = label ? "#1f9d55" : "#d63031";
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = "#fff";
  context.stroke();
  context.beginPath();
  context.moveTo(x - 3.5, y);
  context.lineTo(x + 3.5, y);
  if (label) {
    context.moveTo(x, y - 3.5);
    context.lineTo(x, y + 3.5);
  }
  context.stroke();
}
