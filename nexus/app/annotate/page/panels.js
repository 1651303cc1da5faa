// The lists beside the picture. Names come from files and people: they are always set as text.

import { KEYS } from "./keys.js";

export const find = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const small = (label, text, onclick, more = {}) =>
  make("button", { class: "small", type: "button", title: label, "aria-label": label, onclick, ...more }, text);

// The rows are made anew when something in them has changed, but never under the hands of who writes a name into one.
let shownClasses = "";

export function showClasses(app) {
  const list = find("classes"), { classes, used } = app.project;
  const now = JSON.stringify([classes, used]);
  if (list.querySelector(".name input")) return;
  if (now !== shownClasses) list.replaceChildren(...classes.map((one, index) => classRow(app, one, index)));
  shownClasses = now;
  classes.forEach((one, index) => {
    list.children[index].classList.toggle("chosen", one.id === app.label);
    list.children[index].setAttribute("aria-current", one.id === app.label);
  });
}

function classRow(app, one, index) {
  const stop = (event) => event.stopPropagation();
  const color = make("input", {
    type: "color", value: one.color, title: `Colour of ${one.name}`, "aria-label": `Colour of ${one.name}`, onclick: stop,
    onchange: (event) => app.changeClass(one.id, { color: event.target.value }),
  });
  const name = make("span", { class: "name" }, one.name);
  const used = app.project.used[one.id] ?? 0;
  return make("li", { onclick: () => app.chooseClass(index), ondblclick: () => rename(app, one, name) }, color, make("kbd", {}, index < 9 ? String(index + 1) : ""), name, make("span", { class: "count" }, used || ""),
  small(`Rename ${one.name}`, "✎", (event) => { stop(event); rename(app, one, name); }),
  small(used ? `${one.name} has objects` : `Remove ${one.name}`, "×", (event) => { stop(event); app.removeClass(one.id); },
    { disabled: used > 0 || app.project.classes.length === 1 }));
}

function rename(app, one, place) {
  const input = make("input", { value: one.name, maxlength: 100, "aria-label": "New name", onclick: (event) => event.stopPropagation() });
  const finish = (keep) => {
    input.onblur = null;
    const text = input.value.trim();
    place.replaceChildren(one.name);
    if (keep && text && text !== one.name) app.changeClass(one.id, { name: text });
    else showClasses(app);
  };
  input.onblur = () => finish(true);
  input.onkeydown = (event) => {
    if (event.key === "Enter") finish(true);
    if (event.key === "Escape") finish(false);
  };
  place.replaceChildren(input);
  input.select();
}

export function showObjects(app) {
  const { doc } = app;
  const rows = (doc?.objects ?? []).map((one, index) => objectRow(app, one, index)).reverse();
  find("objects").replaceChildren(...rows);
  find("objects-count").textContent = rows.length || "";
  find("objects-empty").hidden = rows.length > 0;
}

function objectRow(app, one, index) {
  const active = index === app.doc.activeIndex;
  const label = app.project.classes.find((each) => each.id === one.label);
  const swatch = make("span", { class: "swatch" });
  swatch.style.background = label?.color ?? "#fff";
  const act = (run) => (event) => { event.stopPropagation(); run(); };
  const last = app.doc.objects.length - 1;
  return make("li", { class: active ? "chosen" : "", "aria-current": active ? "true" : null, onclick: () => app.select(index) },
    swatch, make("span", { class: "name" }, label?.name ?? "?"),
    make("span", { class: "count", title: "What the model expects the overlap with the object to be" },
      one.score == null ? "" : `${Math.round(100 * Math.max(0, Math.min(1, one.score)))}%`),
    ...(active && last ? [
      small("Lay it over the next one", "↑", act(() => app.move(index, 1)), { disabled: index === last }),
      small("Lay it under the one before", "↓", act(() => app.move(index, -1)), { disabled: index === 0 }),
    ] : []),
    small("Remove the object", "×", act(() => app.remove(index))));
}

export function listImages(app) {
  const rows = app.project.names.map((name, number) => make("li", { onclick: () => app.open(number), title: name },
    make("span", { class: "state" }), make("span", { class: "name" }, name), make("span", { class: "count" })));
  find("images").replaceChildren(...rows);
  rows.forEach((_, number) => showImage(app, number));
  showProgress(app);
}

export function showImage(app, number) {
  const row = find("images").children[number];
  const [objects, done] = app.project.status[number] ?? [0, false];
  row.classList.toggle("chosen", number === app.number);
  row.classList.toggle("done", done);
  row.querySelector(".state").textContent = done ? "✓" : objects ? "•" : "";
  row.querySelector(".count").textContent = objects || "";
  if (number === app.number) row.scrollIntoView({ block: "nearest" });
}

export function showProgress(app) {
  const done = Object.values(app.project.status).filter(([, one]) => one).length;
  find("progress").value = done / app.project.names.length;
  find("progress-text").textContent = `${done} of ${app.project.names.length} done`;
}

export function showKeys() {
  find("keys").replaceChildren(...KEYS.map(([title, rows]) => make("section", {}, make("h3", {}, title),
    make("dl", {}, ...rows.filter(([, shown]) => shown).flatMap(([, shown, says]) =>
      [make("dt", {}, ...shown.split(" ").map((key) => make("kbd", {}, key))), make("dd", {}, says)])))));
}

export function showFormats(app) {
  find("formats").replaceChildren(...Object.entries(app.project.formats).map(([name, says], index) =>
    make("label", {}, make("input", { type: "radio", name: "format", value: name, checked: index === 0 }), make("span", {}, says))));
}
