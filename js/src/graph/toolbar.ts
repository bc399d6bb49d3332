/** The row above the canvas: search, what the colour shows, zoom, folding, box selection, keys. */
import { missing, QUANTITY_LABEL } from "../colours";
import { h } from "../dom";
import { QUANTITIES, type Quantity } from "../store";
import { foldAll, unfoldAll } from "./actions";
import { type Icon, icon } from "./icons";
import type { View } from "./view";

const ZOOM_STEP = 1.4;

export interface Toolbar {
  readonly element: HTMLElement;
  boxMode(): void;
  dispose(): void;
}

export function createToolbar(view: View, search: HTMLElement, keys: () => void): Toolbar {
  const { store } = view;
  const select = h("select", { "aria-label": "Colour shows", title: "What the colour of a layer shows" });
  select.addEventListener("change", () => store.setColour(select.value as Quantity));
  const percent = h("button", { type: "button", class: "pe-graph-zoom", title: "Back to 100 %" });
  percent.addEventListener("click", () => view.zoom(1 / view.camera.scale));
  const box = button("select", "Select with a box (s; or shift and drag)", () => boxMode());
  box.setAttribute("aria-pressed", "false");
  const boxMode = (): void => {
    view.boxMode = !view.boxMode;
    box.setAttribute("aria-pressed", String(view.boxMode));
    view.canvas.style.cursor = view.boxMode ? "crosshair" : "";
  };
  const element = h(
    "div",
    { class: "pe-graph-tools", role: "toolbar", "aria-label": "Graph" },
    search,
    h("label", { class: "pe-graph-colour" }, h("span", {}, "Colour"), select),
    h(
      "span",
      { class: "pe-graph-buttons" },
      button("minus", "Zoom out (−)", () => view.zoom(1 / ZOOM_STEP)),
      percent,
      button("plus", "Zoom in (+)", () => view.zoom(ZOOM_STEP)),
      button("fit", "Fit the selection, else the whole graph (f)", () => view.fit()),
      button("home", "To the top (Home)", () => view.home()),
    ),
    h(
      "span",
      { class: "pe-graph-buttons" },
      button("fold", "Fold all ([)", () => foldAll(view)),
      button("unfold", "Unfold all (])", () => unfoldAll(view)),
      box,
      button("keys", "Keys (?)", keys),
    ),
  );
  let shown = "";
  const update = (): void => {
    const reasons = QUANTITIES.map((quantity) => missing(store, quantity));
    const state = `${store.colour}|${reasons.join("|")}`;
    if (state === shown) return;
    shown = state;
    select.replaceChildren(
      ...QUANTITIES.map((quantity, at) =>
        h(
          "option",
          { value: quantity, disabled: reasons[at] !== "" && quantity !== store.colour, title: reasons[at] || null },
          reasons[at] ? `${QUANTITY_LABEL[quantity]} (not yet)` : QUANTITY_LABEL[quantity],
        ),
      ),
    );
    select.value = store.colour;
  };
  const zoomed = (): void => {
    const text = `${(100 * view.camera.scale).toFixed(view.camera.scale < 0.1 ? 1 : 0)} %`;
    if (percent.textContent !== text) percent.textContent = text;
  };
  view.onChange(update);
  view.onPaint(zoomed);
  update();
  return { element, boxMode, dispose: () => element.remove() };
}

function button(name: Icon, title: string, run: () => void): HTMLButtonElement {
  return h(
    "button",
    { type: "button", class: "pe-graph-button", title, "aria-label": title, onclick: run },
    icon(name),
  );
}
