/** The panel: the bar above, the graph left, the inspector right. Hosts mount it; it computes nothing. */
import { createBar } from "./bar/bar";
import { h } from "./dom";
import { createGraph, type Graph } from "./graph/graph";
import { createInspector } from "./inspector/inspector";
import type { Source } from "./source";
import { Store } from "./store";

export interface Panel {
  store: Store;
  graph: Graph;
  dispose(): void;
}

/** Mounts the panel into an element, which may have no size yet. */
export function mountPanel(element: HTMLElement, source: Source): Panel {
  const store = new Store(source);
  const bar = h("div", { class: "pe-bar" });
  const graph = h("div", { class: "pe-graph" });
  const inspector = h("div", { class: "pe-inspector" });
  const root = h(
    "div",
    {
      class: "pe-panel",
      tabindex: -1, // else a click on plain words gives the keyboard to the cell
      role: "application",
      "aria-label": "Precision Explorer",
    },
    bar,
    h("div", { class: "pe-main" }, graph, inspector),
  );
  element.append(root);
  const release = keepKeys(root);
  const drawn = createGraph(graph, store);
  const parts = [createBar(bar, store), drawn, createInspector(inspector, store)];
  const panel: Panel = {
    store,
    graph: drawn,
    dispose() {
      release();
      for (const part of parts) part.dispose();
      store.dispose();
      source.dispose();
      root.remove();
    },
  };
  // For the browser's console, and for tests that have to know where on the canvas a layer is.
  Object.assign(root, { precisionExplorer: panel });
  return panel;
}

/**
 * Keeps JupyterLab from taking keys typed here as commands on cells. It looks for the attribute outwards from the focused
 * element, and its commands match at that element already: so whatever gets the focus must carry it.
 */
function keepKeys(root: HTMLElement): () => void {
  const mark = (event: FocusEvent): void => {
    if (event.target instanceof HTMLElement) event.target.setAttribute("data-lm-suppress-shortcuts", "true");
  };
  root.addEventListener("focusin", mark);
  return () => root.removeEventListener("focusin", mark);
}
