/** The menu in which the user chooses the table's columns. */
import { h } from "../dom";
import type { Store } from "../store";
import { COLUMNS, type Column } from "./columns";
import type { Part } from "./part";
import { refill } from "./ui";

/** Returns the menu; `chosen` says by key which columns are shown, and `changed` is called when it does. */
export function createColumnMenu(store: Store, chosen: Map<string, boolean>, changed: () => void): Part {
  const element = h("details", { class: "pe-i-columns" });
  const item = (column: Column): HTMLElement => {
    const box = h("input", {
      type: "checkbox",
      checked: chosen.get(column.key) ?? false,
      onchange: () => {
        chosen.set(column.key, box.checked);
        changed();
      },
    });
    return h("label", { title: column.title }, box, column.label);
  };
  const elsewhere = (event: Event): void => {
    if (!element.contains(event.target as Node)) element.open = false;
  };
  const pressed = (event: KeyboardEvent): void => {
    if (event.key !== "Escape" || !element.open) return;
    element.open = false;
    element.querySelector("summary")?.focus();
    event.stopPropagation(); // Escape closes the menu, and does not clear the selection too
  };
  document.addEventListener("pointerdown", elsewhere);
  element.addEventListener("keydown", pressed);
  return {
    element,
    update() {
      // The id cannot be left out: without it a row says nothing.
      const offered = COLUMNS.filter((column) => column.there(store) && column.kind !== "id");
      const key = offered.map((column) => column.key);
      refill(element, key, () => [
        h("summary", { class: "pe-i-button pe-i-quiet", title: "Choose columns" }, "Columns"),
        h("div", { class: "pe-i-menu" }, ...offered.map(item)),
      ]);
    },
    dispose() {
      document.removeEventListener("pointerdown", elsewhere);
      element.remove();
    },
  };
}
