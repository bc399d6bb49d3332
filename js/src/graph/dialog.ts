/** The list of keys: a dialog that keeps the focus until it is closed. */
import { h } from "../dom";
import { icon } from "./icons";
import { KEYS } from "./keyboard";

export interface KeysDialog {
  open(): void;
  dispose(): void;
}

export function createKeysDialog(host: HTMLElement, back: () => void): KeysDialog {
  const closer = h("button", { type: "button", class: "pe-graph-button", "aria-label": "Close" }, icon("close"));
  const rows = KEYS.flatMap(([keys, does]) => [
    h("dt", {}, ...keys.split("  ").map((key) => h("kbd", {}, key))),
    h("dd", {}, does),
  ]);
  const pointer = h(
    "p",
    {},
    "Drag to pan, turn the wheel to scroll, ctrl or cmd and the wheel (or a pinch) to zoom. Click to select, shift-click to add, " +
      "double-click a scope to fold or unfold it, click a format badge to toggle, right-click for more.",
  );
  const card = h(
    "div",
    { class: "pe-graph-keys", role: "dialog", "aria-modal": "true", "aria-label": "Keys of the graph", tabindex: -1 },
    h("header", {}, h("strong", {}, "Keys"), closer),
    h("dl", {}, ...rows),
    pointer,
  );
  const cover = h("div", { class: "pe-graph-cover", hidden: true }, card);
  const close = (): void => {
    cover.hidden = true;
    back();
  };
  const key = (event: KeyboardEvent): void => {
    event.stopPropagation();
    if (event.key === "Escape" || event.key === "?") close();
    // One control: Tab stays on it.
    else if (event.key === "Tab") closer.focus();
    else return;
    event.preventDefault();
  };
  closer.addEventListener("click", close);
  cover.addEventListener("keydown", key);
  cover.addEventListener("pointerdown", (event) => {
    if (event.target === cover) close();
  });
  host.append(cover);
  return {
    open() {
      cover.hidden = false;
      closer.focus({ preventScroll: true });
    },
    dispose: () => cover.remove(),
  };
}
