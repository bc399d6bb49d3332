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
  // Without the attribute JupyterLab takes every key typed here as a command on the cell.
  const root = h(
    "div",
    {
      class: "pe-panel",
      "data-lm-suppress-shortcuts": "true",
      tabindex: -1, // else a click on plain words gives the keyboard to the cell
      role: "application",
      "aria-label": "Precision Explorer",
    },
    bar,
    h("div", { class: "pe-main" }, graph, inspector),
  );
  element.append(root);
  const release = holdFocus(root);
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

const STEALS = 3; // for one press; a host that insists has it

/**
 * Takes the focus back when the cell around the panel takes it: a click in a cell that is not the active one makes
 * JupyterLab activate that cell and focus it, and the next key would add or delete cells.
 */
function holdFocus(root: HTMLElement): () => void {
  let left = 0;
  const press = (event: Event): void => {
    left = event.composedPath().includes(root) ? STEALS : 0;
  };
  const lost = (event: FocusEvent): void => {
    const [from, to] = [event.target, event.relatedTarget];
    if (left === 0 || !(to instanceof Node) || to === root || !to.contains(root)) return;
    left -= 1;
    queueMicrotask(() => {
      const held = from instanceof HTMLElement && from.isConnected ? from : root;
      held.focus({ preventScroll: true });
    });
  };
  document.addEventListener("pointerdown", press, true);
  root.addEventListener("focusout", lost);
  return () => {
    document.removeEventListener("pointerdown", press, true);
    root.removeEventListener("focusout", lost);
  };
}
