// Keeps what is marked: a moment after each change, and before another image is shown.

import * as api from "./api.js";
import { find } from "./panels.js";

const PAUSE = 400;    // milliseconds between the last change and saving it
const AGAIN = 3000;   // until saving is tried again

export class Saver {
  constructor(app) {
    this.app = app;
    this.doc = null;
    this.last = Promise.resolve(true);
  }

  // Begins to keep another document.
  begin(number, doc) {
    clearTimeout(this.timer);
    Object.assign(this, { number, doc, saved: doc.changes });
    this.#say("Saved");
  }

  isUnsaved() {
    return Boolean(this.doc) && this.doc.changes !== this.saved;
  }

  changed() {
    if (!this.isUnsaved()) return;
    this.#say("Saving …");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), PAUSE);
  }

  // Saves until there is nothing to save; returns whether that came about. One saving waits for the one before.
  flush() {
    clearTimeout(this.timer);
    this.last = this.last.then(() => this.#save());
    return this.last;
  }

  async #save() {
    const { doc, number } = this;
    try {
      while (doc === this.doc && this.isUnsaved()) {
        const changes = doc.changes, said = await api.save(number, doc.toKept());
        doc.revision = said.revision;
        this.saved = changes;
        this.app.kept(number, said, doc.done);
        this.app.banner(null);
      }
      this.#say("Saved");
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  #failed(error) {
    this.#say("Not saved", true);
    if (error.status === 409) {
      this.app.banner(error.message, "Load it again", () => this.app.open(this.number, true));
    } else {
      this.app.banner(`Not saved: ${error.message}`, "Try again", () => this.flush());
      if (!error.status) this.timer = setTimeout(() => this.flush(), AGAIN);
    }
  }

  #say(text, wrong = false) {
    find("saved").textContent = text;
    find("saved").classList.toggle("wrong", wrong);
  }
}
