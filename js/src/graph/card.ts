/** The card beside what the pointer is on. Where there is room it does not cover it; the pointer never meets it. */
import { h } from "../dom";
import { brief, groupRows, layerRows, provenance, type Row, wireRows } from "./describe";
import type { Hit } from "./hit";
import type { View } from "./view";

/** The first card waits, so that a pointer that only passes shows none; the next ones follow at once. */
const WAIT_MS = 180;
const GAP = 10; // to the box
const EDGE = 4; // to the edge of the view
const NARROWEST = 150; // pixels: less would break its rows

export interface Card {
  show(hit: Hit | null, x: number, y: number): void;
  hide(): void;
  dispose(): void;
}

export function createCard(view: View): Card {
  const element = h("div", { class: "pe-graph-card", "aria-hidden": "true", hidden: true });
  const around = view.host.closest<HTMLElement>(".pe-main") ?? view.host; // in a narrow graph it hangs over the inspector
  around.append(element);
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
    put(view, element, around, last.hit, last.x, last.y);
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

/** Beside the box (right, else left), else below or above it; narrowed to the room beside it where it fits nowhere. */
function put(view: View, element: HTMLElement, around: HTMLElement, hit: Hit, x: number, y: number): void {
  const [stage, outer] = [view.host.getBoundingClientRect(), around.getBoundingClientRect()];
  const [fromX, fromY] = [outer.left - stage.left + EDGE, outer.top - stage.top + EDGE];
  const [toX, toY] = [outer.right - stage.left - EDGE, outer.bottom - stage.top - EDGE];
  const whole = hit.box >= 0 ? view.onScreen(hit.box) : { x: x - 8, y: y - 8, width: 16, height: 16 };
  // Of a frame only its title is pointed at.
  const box = view.scene.boxes[hit.box]?.open ? { ...whole, height: Math.min(whole.height, y - whole.y + 12) } : whole;
  const [left, right] = [box.x - GAP, box.x + box.width + GAP];
  const [above, below] = [box.y - GAP, box.y + box.height + GAP];
  const place = (): [number, number] | null => {
    const card = { width: element.offsetWidth, height: element.offsetHeight };
    const alongX = Math.max(fromX, Math.min(toX - card.width, x - card.width / 2));
    const alongY = Math.max(fromY, Math.min(toY - card.height, y - card.height / 3));
    if (right + card.width <= toX) return [right, alongY];
    if (left - card.width >= fromX) return [left - card.width, alongY];
    if (below + card.height <= toY) return [alongX, below];
    return above - card.height >= fromY ? [alongX, above - card.height] : null;
  };
  element.style.maxWidth = "";
  let at = place();
  const room = Math.floor(Math.max(toX - right, left - fromX));
  if (!at && room >= NARROWEST) {
    element.style.maxWidth = `${room}px`;
    at = place();
  }
  const [atX, atY] = at ?? [fromX, Math.max(fromY, toY - element.offsetHeight)];
  const [shiftX, shiftY] = [atX - fromX + EDGE, atY - fromY + EDGE];
  element.style.transform = `translate(${Math.round(shiftX)}px, ${Math.round(shiftY)}px)`;
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
