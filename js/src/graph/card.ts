/** The card beside what the pointer is on. It never covers it, and the pointer never meets it. */
import { h } from "../dom";
import { brief, groupRows, layerRows, provenance, type Row, wireRows } from "./describe";
import type { Hit } from "./hit";
import type { View } from "./view";

/** The first card waits, so that a pointer that only passes shows none; the next ones follow at once. */
const WAIT_MS = 180;
const GAP = 10;

export interface Card {
  show(hit: Hit | null, x: number, y: number): void;
  hide(): void;
  dispose(): void;
}

export function createCard(view: View): Card {
  const element = h("div", { class: "pe-graph-card", "aria-hidden": "true", hidden: true });
  view.host.append(element);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let shown = ""; // what it says, so that a pointer that moves inside a box changes no text
  let last: { hit: Hit; x: number; y: number } | null = null;

  const hide = (): void => {
    clearTimeout(timer);
    timer = undefined;
    last = null;
    shown = "";
    element.hidden = true;
  };
  const draw = (): void => {
    timer = undefined;
    if (!last) return;
    const key = `${last.hit.box}|${last.hit.wire}|${view.version}`;
    if (key !== shown) {
      const content = contentOf(view, last.hit);
      if (!content) {
        hide();
        return;
      }
      element.replaceChildren(...content);
      shown = key;
    }
    element.hidden = false;
    put(view, element, last.hit, last.x, last.y);
  };
  return {
    show(hit, x, y) {
      if (!hit || (hit.box < 0 && hit.wire < 0)) {
        hide();
        return;
      }
      last = { hit, x, y };
      if (!element.hidden) draw();
      else timer ??= setTimeout(draw, WAIT_MS);
    },
    hide,
    dispose() {
      hide();
      element.remove();
    },
  };
}

/** Beside the box (right, else left), else below or above it; along with the pointer in the other direction. */
function put(view: View, element: HTMLElement, hit: Hit, x: number, y: number): void {
  const { width, height } = view.size;
  const card = { width: element.offsetWidth, height: element.offsetHeight };
  const whole = hit.box >= 0 ? view.onScreen(hit.box) : { x: x - 8, y: y - 8, width: 16, height: 16 };
  // Of a frame only its title is pointed at.
  const box = view.scene.boxes[hit.box]?.open ? { ...whole, height: Math.min(whole.height, y - whole.y + 12) } : whole;
  const clampX = (at: number): number => Math.max(4, Math.min(width - card.width - 4, at));
  const clampY = (at: number): number => Math.max(4, Math.min(height - card.height - 4, at));
  let [left, top] = [box.x + box.width + GAP, clampY(y - card.height / 3)];
  if (left + card.width > width - 4) left = box.x - GAP - card.width;
  if (left < 4) {
    left = clampX(x - card.width / 2);
    top = box.y + box.height + GAP;
    if (top + card.height > height - 4) top = box.y - GAP - card.height;
    if (top < 4) top = clampY(box.y + box.height + GAP);
  }
  element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}

function contentOf(view: View, hit: Hit): Node[] | null {
  const { store, facts } = view;
  const box = view.scene.boxes[hit.box];
  if (!box) {
    const wire = view.scene.wires[hit.wire];
    if (!wire) return null;
    const { title, rows } = wireRows(store, wire);
    return [heading(title, ""), table(rows)];
  }
  if (box.kind === "layer") {
    const format = store.formatOf(box.node);
    const locked = store.isBlacklisted(box.node) ? ", blacklisted" : "";
    const title = heading(store.model.op(box.node), `${format === "none" ? "no floats" : format}${locked}`);
    return [title, name(store.model.name(box.node)), table(layerRows(store, box.node)), foot(provenance(store))];
  }
  if (box.kind === "group") {
    const { groups } = store.model.structure;
    const kind = groups.kind[box.group] === "scope" ? "scope" : "segment";
    return [
      heading(groups.label[box.group] ?? "", kind),
      name(groups.path[box.group] ?? ""),
      table(groupRows(store, facts, box.group)),
      foot(facts.scale.provenance ? [facts.scale.provenance] : []),
    ];
  }
  const { structure } = store.model;
  const side = box.kind === "input" ? structure.inputs : structure.outputs;
  const at = box.node - store.model.layers - (box.kind === "input" ? 0 : structure.inputs.name.length);
  const tensor = side.tensor[at] ?? -1;
  const dtype = structure.dtypes[structure.tensors.dtype[tensor] ?? -1] ?? "";
  const rows = [{ label: "shape", text: `${structure.tensors.shape[tensor] ?? "?"} ${dtype}` }];
  return [heading(store.model.name(box.node), `model ${box.kind}`), table(rows)];
}

function heading(text: string, aside: string): HTMLElement {
  return h("div", { class: "pe-graph-card-title" }, h("strong", {}, brief(text)), aside && h("span", {}, aside));
}

function name(text: string): HTMLElement {
  return h("div", { class: "pe-graph-card-name" }, brief(text, 200));
}

function table(rows: readonly Row[]): HTMLElement {
  return h(
    "dl",
    {},
    ...rows.flatMap((row) => [h("dt", {}, row.label), h("dd", { class: row.tone && `pe-${row.tone}` }, row.text)]),
  );
}

function foot(lines: readonly string[]): HTMLElement {
  return h("div", { class: "pe-graph-card-foot" }, ...lines.map((line) => h("div", {}, line)));
}
