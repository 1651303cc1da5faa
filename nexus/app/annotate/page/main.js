// The page: opens images, hands what the tools do to the model and to the document, and saves.

import * as api from "./api.js";
import { View } from "./canvas.js";
import { Document, newObject, withMask } from "./document.js";
import { listen } from "./keys.js";
import { find, listImages, showClasses, showFormats, showImage, showKeys, showObjects, showProgress } from "./panels.js";
import { EMPTY, fromCounts, iou } from "./runs.js";
import { Saver } from "./saver.js";
import { Tools } from "./tools.js";

const FOLLOWED = 24; // images through which an object is followed at once
const SAME = 0.9;   // overlap from which two objects are said to be one
const HINTS = {
  click: "Click an object. Right-click what is not part of it.",
  box: "Drag a box around an object.",
  brush: "Paint. The right button erases; [ and ] or Shift + wheel change the size.",
  eraser: "Erase. The right button paints.",
  move: "Click an object to select it, drag to move the image.",
};

class App {
  async start() {
    this.project = await api.project();
    this.label = this.project.classes[0].id;
    this.number = -1;
    this.queue = Promise.resolve();
    this.view = new View(find("stage"));
    this.tools = new Tools(this.view, this);
    this.saver = new Saver(this);
    this.pictures = new Map();
    find("model").textContent = this.project.model;
    find("output").textContent = this.project.output;
    listImages(this);
    showClasses(this);
    showKeys();
    showFormats(this);
    this.#listen();
    listen(this);
    this.choose("click");
    await this.open(Math.min(Math.max(0, Number(location.hash.slice(1)) - 1 || 0), this.project.names.length - 1));
  }

  #listen() {
    const press = (id, run) => find(id).addEventListener("click", run);
    press("previous", () => this.step(-1));
    press("next", () => this.step(1));
    press("finish-image", () => this.finishImage());
    press("undo", () => this.undo());
    press("redo", () => this.redo());
    press("help", () => this.help());
    press("open-export", () => find("export").showModal());
    press("run-export", () => this.export());
    press("zoom-in", () => this.view.zoomBy(1.25));
    press("zoom-out", () => this.view.zoomBy(1 / 1.25));
    press("fit", () => this.view.fit());
    press("guess", () => this.nextGuess());
    press("finish", () => this.finish());
    press("follow", () => this.follow());
    press("swap", () => this.swap());
    press("banner-act", () => this.bannerAct?.());
    find("done").addEventListener("change", (event) => this.setDone(event.target.checked));
    find("radius").addEventListener("input", (event) => { this.tools.radius = Number(event.target.value); this.view.draw(); });
    find("opacity").addEventListener("input", (event) => { this.view.opacity = Number(event.target.value) / 100; this.view.draw(); });
    find("new-class").addEventListener("submit", (event) => { event.preventDefault(); this.addClass(find("class-name").value.trim()); });
    document.querySelectorAll("[data-choose]").forEach((one) => one.addEventListener("click", () => this.choose(one.dataset.choose)));
    document.querySelectorAll("dialog .close").forEach((one) => one.addEventListener("click", () => one.closest("dialog").close()));
    window.addEventListener("beforeunload", (event) => { if (this.saver.isUnsaved()) event.preventDefault(); });
  }

  // Images.

  // With `again` the image is loaded anew, and what was not saved is lost.
  async open(number, again = false) {
    if (number < 0 || number >= this.project.names.length || this.opening === number) return;
    this.opening = number;
    try {
      if (!again && !await this.saver.flush()) return;
      this.aborter?.abort();
      this.aborter = new AbortController();
      await this.#load(number, this.aborter.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#broken(error.message);
    } finally {
      if (this.opening === number) this.opening = null;
    }
  }

  async #load(number, signal) {
    const before = this.number;
    Object.assign(this, { number, doc: null, pending: null, queue: Promise.resolve() });
    this.tools.stop();
    history.replaceState(null, "", `#${number + 1}`);
    if (before >= 0) showImage(this, before);
    showImage(this, number);
    find("name").textContent = this.project.names[number];
    find("place").textContent = `${number + 1} / ${this.project.names.length}`;
    find("broken").hidden = true;
    this.banner(null);
    this.#wait(number, signal);
    const [kept, picture] = await Promise.all([api.marks(number, signal), this.#picture(number, signal)]);
    if (signal.aborted) return;
    this.doc = new Document(kept);
    this.saver.begin(number, this.doc);
    this.view.show(picture, { width: kept.width, height: kept.height });
    this.#show();
    this.#fetchAhead(number + 1);
  }

  // Says that the model looks at the image until it has.
  async #wait(number, signal) {
    this.isReady = false;
    const shown = setTimeout(() => { find("looking").hidden = this.isReady; }, 150);
    try {
      await api.ready(number, signal);
      this.isReady = true;
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message);
    } finally {
      clearTimeout(shown);
      if (!signal.aborted) find("looking").hidden = true;
    }
  }

  async #picture(number, signal) {
    const blob = this.pictures.get(number) ?? await api.picture(number, signal);
    this.pictures.delete(number);
    return createImageBitmap(blob);
  }

  async #fetchAhead(number) {
    if (number >= this.project.names.length) return;
    this.pictures.clear();
    const blob = await api.picture(number).catch(() => null);
    if (blob && number === this.number + 1) this.pictures.set(number, blob);
  }

  #broken(message) {
    this.doc = null;
    this.view.show(null, { width: 1, height: 1 });
    find("broken").textContent = message;
    find("broken").hidden = false;
    find("looking").hidden = true;
    this.#show();
  }

  step(by) { return this.open(this.number + by); }

  nextOpen() {
    const count = this.project.names.length;
    for (let by = 1; by <= count; by++) {
      const number = (this.number + by) % count;
      if (!this.project.status[number]?.[1]) return this.open(number);
    }
    this.say("Every image is done.");
  }

  finishImage() {
    this.enqueue(async () => {
      this.doc.select(-1);
      this.setDone(true);
      if (this.number + 1 < this.project.names.length) await this.step(1);
      else this.say("That was the last image.");
    });
  }

  setDone(done) {
    this.doc?.setDone(done);
    this.#changed();
  }

  // What happens to objects happens one after another: a click may have to wait for the answer to the one before.

  enqueue(run) {
    const { doc } = this;
    if (!doc) return this.queue;
    this.queue = this.queue.then(async () => {
      if (doc !== this.doc) return;
      try {
        await run(doc);
      } catch (error) {
        if (error.name !== "AbortError") this.say(error.message);
      } finally {
        if (doc === this.doc) { this.pending = null; this.#show(); }
      }
    });
    return this.queue;
  }

  point(point) {
    if ((this.doc?.active?.points.length ?? 0) >= this.project.limits.points) return this.say("These are all the clicks that an object can have.");
    this.pending = { points: [...(this.pending?.points ?? []), point] };
    this.#ask((one) => ({ ...one, points: [...one.points, point] }));
  }

  // A box begins an object, so that one can be drawn after another.
  box(box) {
    this.pending = { points: [], box };
    this.enqueue((doc) => doc.select(-1));
    this.#ask((one) => ({ ...one, box }));
  }

  unpoint(index) {
    this.#ask((one) => ({ ...one, points: one.points.filter((_, place) => place !== index) }));
  }

  nextGuess() {
    this.#ask((one) => ({ ...one, choice: (one.choice + 1) % one.guesses }), (one) => one.guesses > 1);
  }

  // Asks the model about the active object, or a new one, once `change` has been made to what is known of it.
  #ask(change, fits = () => true) {
    this.view.scene.pending = this.pending;
    this.view.draw();
    const { number, aborter, label } = this;
    return this.enqueue(async (doc) => {
      const at = doc.activeIndex, before = doc.active ?? newObject(label);
      if (!fits(before)) return;
      const next = change(before), { points, box, choice } = next;
      if (!points.length && !box) return this.#put(doc, withMask({ ...next, base: EMPTY, score: null }), at);
      find("thinking").hidden = false;
      try {
        const said = await api.mask(number, { points, ...(box && { box }), choice }, aborter.signal);
        if (doc !== this.doc) return;
        const made = withMask({ ...next, base: fromCounts(said.counts), score: said.score, guesses: said.guesses });
        if (!made.mask.length) return this.say("The model finds nothing there.");
        this.#put(doc, made, at);
      } finally {
        find("thinking").hidden = true;
      }
    });
  }

  #put(doc, object, at) {
    if (at < 0 && doc.objects.length >= this.project.limits.objects) return this.say("An image cannot have more objects.");
    doc.put(object, at);
    const twin = doc.objects.findIndex((one, index) => index !== doc.activeIndex && object.mask.length && iou(one.mask, object.mask) > SAME);
    if (twin >= 0) this.say("Another object covers the same.");
    this.#changed();
  }

  // A stroke that is not finished is shown; one that is becomes a step of the history.
  preview(object) {
    const { doc } = this, objects = [...doc.objects];
    const at = doc.activeIndex < 0 ? objects.length : doc.activeIndex;
    objects[at] = object;
    this.view.scene = { ...this.view.scene, objects, active: at };
  }

  drawn(object) {
    this.enqueue((doc) => this.#put(doc, withMask({ ...(doc.active ?? object), added: object.added, removed: object.removed }), doc.activeIndex));
  }

  // Finds the active object in the next images; then the image is loaded anew, for the server has changed it.
  follow() {
    if (!this.project.follows) return;
    this.enqueue(async (doc) => {
      const { number } = this, at = doc.activeIndex;
      if (at < 0 || !await this.saver.flush()) return;
      find("thinking").hidden = false;
      try {
        const said = await api.follow(number, { object: at, images: FOLLOWED });
        Object.assign(this.project, { status: said.status, used: said.used });
        for (let one = number; one <= number + said.images; one++) showImage(this, one);
        showProgress(this);
        this.say(`Followed through ${said.images} image${said.images === 1 ? "" : "s"}.`);
        this.opening = null;
        setTimeout(() => number === this.number && this.open(number, true));
      } finally {
        find("thinking").hidden = true;
      }
    });
  }

  finish() { this.enqueue((doc) => doc.select(-1)); }
  select(index) {
    this.enqueue((doc) => {
      doc.select(index);
      if (doc.active) this.label = doc.active.label;
      showClasses(this);
    });
  }
  escape() { if (!this.tools.stop()) this.finish(); }
  undo() { this.enqueue((doc) => { if (doc.undo()) this.#changed(); }); }
  redo() { this.enqueue((doc) => { if (doc.redo()) this.#changed(); }); }
  move(index, by) { this.enqueue((doc) => { doc.move(index, by); this.#changed(); }); }
  remove(index) { this.enqueue((doc) => { doc.remove(index); this.#changed(); }); }
  removeActive() { this.enqueue((doc) => { if (doc.active) { doc.remove(doc.activeIndex); this.#changed(); } }); }

  // Classes.

  chooseClass(index) {
    const one = this.project.classes[index];
    if (!one) return;
    this.label = one.id;
    showClasses(this);
    this.enqueue((doc) => { if (doc.active) { doc.relabel(doc.activeIndex, one.id); this.#changed(); } });
  }

  nameClass() { find("class-name").focus(); }

  async addClass(name) {
    if (!name) return;
    const id = Math.max(...this.project.classes.map((one) => one.id)) + 1;
    const there = this.project.classes.findIndex((one) => one.name === name);
    if (there < 0 && !await this.#setClasses([...this.project.classes, { id, name, color: this.#freeColor() }])) return;
    find("class-name").value = "";
    find("class-name").blur();
    this.chooseClass(there < 0 ? this.project.classes.length - 1 : there);
  }

  #freeColor() {
    const used = new Set(this.project.classes.map((one) => one.color));
    const { colors, classes } = this.project;
    return colors.find((color) => !used.has(color)) ?? colors[classes.length % colors.length];
  }

  changeClass(id, change) {
    return this.#setClasses(this.project.classes.map((one) => one.id === id ? { ...one, ...change } : one));
  }

  async removeClass(id) {
    if (await this.saver.flush()) await this.#setClasses(this.project.classes.filter((one) => one.id !== id));
    if (this.label === id) this.chooseClass(0);
  }

  async #setClasses(classes) {
    try {
      this.project.classes = await api.classes(classes);
      return true;
    } catch (error) {
      this.say(error.message);
      return false;
    } finally {
      showClasses(this);
      this.#show();
    }
  }

  #changed() {
    this.#show();
    this.saver.changed();
  }

  // What the saver tells.

  kept(number, said, done) {
    this.project.status[number] = [said.objects, done];
    this.project.used = said.used;
    showImage(this, number);
    showProgress(this);
    showClasses(this);
  }

  async export() {
    const format = document.querySelector('input[name="format"]:checked').value;
    const result = find("export-result");
    result.textContent = "Writing …";
    find("run-export").disabled = true;
    try {
      if (!await this.saver.flush()) return void (result.textContent = "The last change is not saved.");
      const made = await api.exported(format);
      const copies = made.left_out ? ` (${made.left_out} copies of objects left out)` : "";
      const check = made.check ? `\nnexus data check ${made.check}` : "";
      result.textContent = `${made.images} images, ${made.objects} objects${copies} in\n${made.path}${check}`;
    } catch (error) {
      result.textContent = error.message;
    } finally {
      find("run-export").disabled = false;
    }
  }

  // What is seen.

  #show() {
    const { doc } = this;
    const colors = new Map(this.project.classes.map((one) => [one.id, one.color]));
    this.view.scene = {
      objects: doc?.objects ?? [], active: doc?.activeIndex ?? -1, hidden: this.hidden, colors, pending: this.pending,
    };
    this.view.draw();
    showObjects(this);
    const active = doc?.active;
    find("done").checked = doc?.done ?? false;
    find("undo").disabled = !doc?.past.length;
    find("redo").disabled = !doc?.future.length;
    find("previous").disabled = this.number <= 0;
    find("next").disabled = this.number >= this.project.names.length - 1;
    find("finish").hidden = !active;
    find("follow").hidden = !(active && this.project.follows && this.number < this.project.names.length - 1);
    find("guess").hidden = !(active && active.guesses > 1);
    find("guess").firstChild.textContent = active ? `Guess ${active.choice + 1} of ${active.guesses} ` : "";
    this.#hint();
  }

  #hint() {
    const drawing = this.tools.name === "brush" || this.tools.name === "eraser";
    find("brush-size").hidden = !drawing;
    find("swap").hidden = this.tools.name !== "click";
    find("swap").textContent = this.tools.adds ? "+ part of it" : "− not part of it";
    find("swap").classList.toggle("not", !this.tools.adds);
    const started = this.tools.name === "click" && this.doc?.active;
    find("hint").textContent = started ? "Click what is missing, right-click what is too much. Click a point again to take it away." : HINTS[this.tools.name];
  }

  choose(name) {
    this.tools.choose(name);
    document.querySelectorAll("[data-choose]").forEach((one) => one.setAttribute("aria-pressed", one.dataset.choose === name));
    this.#hint();
  }

  swap() {
    this.tools.adds = !this.tools.adds;
    this.#hint();
  }

  resizeBrush(factor) {
    this.tools.resize(factor);
    this.brushChanged();
  }

  brushChanged() { find("radius").value = this.tools.radius; }

  hold(moving) {
    this.tools.moving = moving;
    this.view.stage.classList.toggle("moving", moving);
  }

  hide() {
    this.hidden = !this.hidden;
    this.#show();
  }

  help() { find("help-dialog").showModal(); }

  say(text) {
    find("toast").textContent = text;
    find("toast").hidden = false;
    clearTimeout(this.toast);
    this.toast = setTimeout(() => { find("toast").hidden = true; }, 4000);
  }

  banner(text, action, act) {
    find("banner").hidden = !text;
    find("banner-text").textContent = text ?? "";
    find("banner-act").textContent = action ?? "";
    this.bannerAct = act;
  }
}

const app = new App();
window.annotate = app;   // for the console, and for tests
app.start().catch((error) => {
  find("broken").textContent = error.message;
  find("broken").hidden = false;
});
