// What the keyboard does. The page lists this table, and the tools show their keys from it.

export const KEYS = [
  ["Tools", [
    ["c", "C", "Click: points at an object; right click at what is not part of it", (app) => app.choose("click")],
    ["b", "B", "Box: drag it around an object", (app) => app.choose("box")],
    ["p", "P", "Brush: paint on the object", (app) => app.choose("brush")],
    ["e", "E", "Eraser: take away from the object", (app) => app.choose("eraser")],
    ["v", "V", "Select: click objects, drag the image", (app) => app.choose("move")],
    ["x", "X", "Swap what left and right click mean", (app) => app.swap()],
    ["[", "[", "Smaller brush", (app) => app.resizeBrush(1 / 1.25)],
    ["]", "]", "Larger brush", (app) => app.resizeBrush(1.25)],
  ]],
  ["Objects", [
    ["enter", "Enter", "Finish the object; the next click begins another", (app) => app.finish()],
    ["g", "G", "Another guess at the first click: a part of it, or more than it", (app) => app.nextGuess()],
    ["w", "W", "Follow the object through the next images (SAM 2)", (app) => app.follow()],
    ["delete", "Delete", "Remove the object", (app) => app.removeActive()],
    ["backspace", "", "", (app) => app.removeActive()],
    ["escape", "Esc", "Give up what is being drawn, or let go of the object", (app) => app.escape()],
    ["1-9", "1–9", "Class of the object, and of the next ones", null],
    ["n", "N", "Name a new class", (app) => app.nameClass()],
    ["ctrl+z", "Ctrl Z", "Undo", (app) => app.undo()],
    ["ctrl+shift+z", "Ctrl Shift Z", "Redo", (app) => app.redo()],
    ["ctrl+y", "", "", (app) => app.redo()],
  ]],
  ["Images", [
    ["f", "F", "Finished: mark the image as done, and show the next one", (app) => app.finishImage()],
    ["arrowright", "→", "Next image", (app) => app.step(1)],
    ["arrowleft", "←", "Previous image", (app) => app.step(-1)],
    ["t", "T", "Next image that is not done", (app) => app.nextOpen()],
  ]],
  ["View", [
    ["+", "+", "Larger (or turn the wheel)", (app) => app.view.zoomBy(1.25)],
    ["=", "", "", (app) => app.view.zoomBy(1.25)],
    ["-", "−", "Smaller", (app) => app.view.zoomBy(1 / 1.25)],
    ["0", "0", "Whole image", (app) => app.view.fit()],
    ["space", "Space", "Hold and drag: move the image", null],
    ["h", "H", "Hide and show the masks", (app) => app.hide()],
    ["?", "?", "This list", (app) => app.help()],
  ]],
];

const actions = new Map(KEYS.flatMap(([, rows]) => rows).map(([key, , , run]) => [key, run]));

function nameOf(event) {
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  const control = event.ctrlKey || event.metaKey ? "ctrl+" : "";
  return control + (event.shiftKey && key.length === 1 && key.match(/[a-z]/) ? "shift+" : "") + key;
}

export function listen(app) {
  const isTyping = () => document.activeElement?.matches("input:not([type=range], [type=checkbox], [type=radio]), textarea, select");
  document.addEventListener("keydown", (event) => {
    if (isTyping() || document.querySelector("dialog[open]") || event.altKey) return;
    const name = nameOf(event);
    if (name === "space") {
      if (document.activeElement?.matches("button, input")) return;
      event.preventDefault();
      return void app.hold(true);
    }
    if (name === "enter" && document.activeElement?.matches("button, input")) return;
    const run = /^[1-9]$/.test(name) ? () => app.chooseClass(Number(name) - 1) : actions.get(name);
    if (!run) return;
    event.preventDefault();
    run(app);
  });
  document.addEventListener("keyup", (event) => { if (event.key === " ") app.hold(false); });
  window.addEventListener("blur", () => app.hold(false));
}
