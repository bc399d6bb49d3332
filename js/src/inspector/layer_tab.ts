/** The tab Layer: the focused layer, a summary of several, or the model when nothing is selected. */
import { h } from "../dom";
import type { Store } from "../store";
import { createLayerView } from "./layer_view";
import { createOverview } from "./overview";
import type { Part } from "./part";
import { createSeveral } from "./several";

const MAKERS = { layer: createLayerView, several: createSeveral, overview: createOverview };
type Mode = keyof typeof MAKERS;

export function createLayerTab(store: Store): Part {
  const element = h("div", { class: "pe-i-scroll" });
  const folded = new Map<string, boolean>(); // which sections are open, kept from layer to layer
  let mode: Mode | null = null;
  let part: Part | null = null;
  return {
    element,
    update(topic) {
      const wanted: Mode = store.selection.size > 1 ? "several" : store.focus >= 0 ? "layer" : "overview";
      if (wanted !== mode || !part) {
        part?.dispose();
        part = MAKERS[wanted](store, folded);
        mode = wanted;
        element.replaceChildren(part.element);
        element.scrollTop = 0;
      }
      part.update(topic);
    },
    dispose() {
      part?.dispose();
      element.remove();
    },
  };
}
