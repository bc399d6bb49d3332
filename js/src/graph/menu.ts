/** The menu of a box or of the selection; arrow keys, Enter and Escape as in any menu. */
import { h } from "../dom";
import type { Edit } from "../protocol";
import { block, concerned, foldAll, foldAt, scopeOf, toggle, toggleInt8, unfoldAll, use } from "./actions";
import { brief } from "./describe";
import type { View } from "./view";

export interface Item {
  text: string;
  key?: string;
  /** Why it cannot be chosen; "" if it can. */
  off: string;
  run: () => void;
}

export interface Menu {
  open(x: number, y: number): void;
  close(): void;
  dispose(): void;
}

/** Returns what can be done with what the cursor is on and what is selected. */
export function itemsFor(view: View): (Item | null)[] {
  const { store } = view;
  const readOnly = store.source.readOnly ? "This is a report: open the model in JupyterLab to change its plan." : "";
  const layers = concerned(view);
  const can = layers.filter((layer) => store.isSwitchable(layer));
  const at = view.boxOfKey(view.cursor);
  const box = view.scene.boxes[at];
  const edit = (change: Edit) => (): void => void store.edit(change);
  const items: (Item | null)[] = [];
  if (layers.length > 0) {
    const many = can.length === 1 ? "" : ` (${can.length} layers)`;
    const off = readOnly || (can.length === 0 ? "cannot be switched" : "");
    const low = can.some((layer) => store.runsLow(layer));
    const blocked = can.length > 0 && can.every((layer) => store.isBlacklisted(layer));
    const to = low ? "fp32" : store.state.format;
    items.push({ text: `Switch to ${to}${many}`, key: "space", off, run: () => toggle(view, layers) });
    items.push(...formatItems(view, layers, readOnly));
    const keep = blocked ? `Take off the blacklist${many}` : `Keep in fp32${many}`;
    items.push({ text: keep, key: "b", off, run: () => block(view, layers) });
  }
  if (box?.kind === "layer") {
    const op = store.model.op(box.node);
    const state = store.state.ops.find((one) => one.op === op);
    const count = state?.count ?? 0;
    const off = readOnly || (state ? "" : "no layer of this op type has floats");
    const change: Edit = { op: state?.blocked ? "unblock_ops" : "block_ops", ops: [op] };
    const text = state?.blocked ? `Allow all ${brief(op, 30)}` : `Keep all ${brief(op, 30)} in fp32`;
    items.push({ text: `${text} (${count} layers)`, off, run: edit(change) });
    if (mixes(store) && store.mayBe(box.node, "int8")) {
      const some: Edit = { op: "use_ops", format: "int8", ops: [op] };
      items.push({ text: `Run all ${brief(op, 30)} in int8 (${count} layers)`, off, run: edit(some) });
    }
    items.push(...kernelItems(view, box.node));
  }
  const scope = box && box.kind !== "input" && box.kind !== "output" ? scopeOf(view, box) : -1;
  if (scope > 0) {
    const path = store.model.structure.groups.path[scope] ?? "";
    const held = store.model.layersIn(scope).filter((layer) => store.isSwitchable(layer));
    const blocked = held.length > 0 && held.every((layer) => store.isBlacklisted(layer));
    const change: Edit = { op: blocked ? "unblock_scope" : "block_scope", path };
    const label = brief(store.model.structure.groups.label[scope] ?? "", 30);
    const text = blocked ? `Allow scope ${label}` : `Keep scope ${label} in fp32`;
    const off = readOnly || (held.length === 0 ? "nothing in it can be switched" : "");
    items.push({ text: `${text} (${held.length} layers)`, off, run: edit(change) });
    const eight = mixes(store) ? held.filter((layer) => store.mayBe(layer, "int8")) : [];
    if (eight.length > 0) {
      const some: Edit = { op: "use_scope", format: "int8", path };
      items.push({ text: `Run scope ${label} in int8 (${eight.length} layers)`, off, run: edit(some) });
    }
  }
  if (items.length > 0) items.push(null);
  if (box?.kind === "group") {
    items.push({ text: box.open ? "Fold" : "Unfold", key: "Enter", off: "", run: () => foldAt(view, at) });
  } else if (box?.kind === "layer" && store.model.groupOf(box.node) > 0) {
    items.push({ text: "Fold the scope around it", key: "Enter", off: "", run: () => foldAt(view, at) });
  }
  items.push({ text: "Unfold all", key: "]", off: "", run: () => unfoldAll(view) });
  items.push({ text: "Fold all", key: "[", off: "", run: () => foldAll(view) });
  if (box) {
    const { groups } = store.model.structure;
    const name = box.kind === "group" ? groups.path[box.group] || groups.label[box.group] : store.model.name(box.node);
    items.push(null, { text: "Copy name", off: "", run: () => copy(view, name ?? "") });
  }
  return items;
}

/** Whether layers may be given int8 beside the plan's own low format. */
function mixes({ state }: View["store"]): boolean {
  return state.format !== "int8" && state.uses.includes("int8");
}

/** Returns what gives layers int8, or takes it from them. */
function formatItems(view: View, layers: readonly number[], off: string): Item[] {
  const { store } = view;
  const able = mixes(store) ? layers.filter((layer) => store.mayBe(layer, "int8")) : [];
  if (able.length === 0) return [];
  const many = able.length === 1 ? "" : ` (${able.length} layers)`;
  const { format } = store.state;
  const all = able.every((layer) => store.formatOf(layer) === "int8");
  if (!all) return [{ text: `Run in int8${many}`, key: "8", off, run: () => toggleInt8(view, able) }];
  return [{ text: `Run in ${format}${many}`, key: "8", off, run: () => use(view, able, format) }];
}

/** Returns what selects the layers that one kernel computes with this one. */
function kernelItems(view: View, layer: number): Item[] {
  const kernel = view.store.kernel(layer);
  if (!kernel || kernel.layers.length < 2) return [];
  const text = `Select what its kernel computes (${kernel.layers.length} layers)`;
  return [{ text, off: "", run: () => view.select(kernel.layers, layer) }];
}

function copy(view: View, text: string): void {
  const done = navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("no clipboard"));
  done.then(
    () => view.store.say("Copied the name."),
    () => view.store.say("The browser does not let this page copy: select the name in the inspector.", "error"),
  );
}

export function createMenu(view: View, back: () => void): Menu {
  const element = h("div", { class: "pe-graph-menu", role: "menu", "aria-label": "Layer menu", hidden: true });
  view.host.append(element);
  const buttons = (): HTMLButtonElement[] => [...element.querySelectorAll("button")];
  const outside = (event: Event): void => {
    if (!element.contains(event.target as Node)) close();
  };
  const close = (): void => {
    if (element.hidden) return;
    element.hidden = true;
    document.removeEventListener("pointerdown", outside, true);
  };
  const choose = (item: Item): void => {
    if (item.off) return;
    close();
    back();
    item.run();
  };
  const key = (event: KeyboardEvent): void => {
    event.stopPropagation();
    const all = buttons();
    const at = all.indexOf(document.activeElement as HTMLButtonElement);
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -at, End: all.length - 1 - at }[event.key];
    if (step !== undefined) all[(at + step + all.length) % all.length]?.focus();
    else if (event.key === "Escape" || event.key === "Tab") {
      close();
      back();
    } else return;
    event.preventDefault();
  };
  element.addEventListener("keydown", key);
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  return {
    open(x, y) {
      const rows = itemsFor(view).map((item) => (item ? entry(item, choose) : h("hr", { role: "separator" })));
      element.replaceChildren(...rows);
      element.hidden = false;
      const left = Math.max(4, Math.min(x, view.size.width - element.offsetWidth - 4));
      const top = Math.max(4, Math.min(y, view.size.height - element.offsetHeight - 4));
      element.style.transform = `translate(${left}px, ${top}px)`;
      document.addEventListener("pointerdown", outside, true);
      buttons()[0]?.focus({ preventScroll: true });
    },
    close,
    dispose() {
      close();
      element.remove();
    },
  };
}

function entry(item: Item, choose: (item: Item) => void): HTMLElement {
  return h(
    "button",
    {
      type: "button",
      role: "menuitem",
      tabindex: -1,
      "aria-disabled": item.off ? "true" : null,
      title: item.off || null,
      onclick: () => choose(item),
    },
    h("span", {}, item.text),
    item.key && h("kbd", {}, item.key),
  );
}
