/** For tests: every visible box below the one before, and a canvas that remembers what was written on it. */
import type { Box, Layout, Scene, Wire } from "../graph/layout";
import type { Model } from "../model";

const WIDTH = 160;
const HEIGHT = 48;
const STEP = 80;

/** Returns a layout without frames' insides: open groups are strips of the column. */
export function columnLayout(model: Model): Layout {
  return { scene: (open) => columnScene(model, open) };
}

function columnScene(model: Model, open: ReadonlySet<number>): Scene {
  const boxes: Box[] = [];
  const groups = new Map<number, number>();
  const nodes = new Map<number, number>();
  const hidden = (group: number): number =>
    [...model.lineage(group)].reverse().find((at) => at > 0 && !open.has(at)) ?? -1;
  const put = (kind: Box["kind"], node: number, group: number, depth: number, isOpen: boolean): void => {
    boxes.push({ kind, node, group, depth, open: isOpen, x: 20, y: boxes.length * STEP, width: WIDTH, height: HEIGHT });
  };
  const place = (group: number, depth: number): void => {
    if (group > 0) {
      groups.set(group, boxes.length);
      put("group", -1, group, depth - 1, open.has(group));
      if (!open.has(group)) return;
    }
    for (const layer of model.childLayers[group] ?? []) {
      nodes.set(layer, boxes.length);
      put("layer", layer, group, depth, false);
    }
    for (const child of model.childGroups[group] ?? []) place(child, depth + 1);
  };
  place(0, 0);
  const boxOfGroup = (group: number): number => groups.get(hidden(group)) ?? groups.get(group) ?? -1;
  const boxOf = (node: number): number => nodes.get(node) ?? boxOfGroup(model.groupOf(node));
  const wires = new Map<string, Wire>();
  const { from, to } = model.structure.edges;
  from.forEach((start, edge) => {
    const [a, b] = [boxOf(start), boxOf(to[edge] ?? -1)];
    if (a < 0 || b < 0 || a === b) return;
    const key = `${a} ${b}`;
    const points = [100, a * STEP + HEIGHT, 100, b * STEP];
    if (!wires.has(key)) wires.set(key, { from: a, to: b, edges: [], points });
    wires.get(key)?.edges.push(edge);
  });
  return {
    boxes,
    wires: [...wires.values()],
    width: WIDTH + 40,
    height: boxes.length * STEP,
    boxOf,
    boxOfGroup,
  };
}

export interface Written {
  texts: string[];
  restore(): void;
}

/** Gives every canvas a context: jsdom has none. A letter is 6 wide. */
export function stubCanvas(): Written {
  const written: Written = { texts: [], restore: () => undefined };
  const before = Object.getOwnPropertyDescriptor(HTMLCanvasElement.prototype, "getContext");
  const state: Record<string | symbol, unknown> = {
    fillText: (text: string) => written.texts.push(text),
    measureText: (text: string) => ({ width: 6 * text.length }),
  };
  const context = new Proxy(state, {
    get: (target, name) => target[name] ?? (() => undefined),
    set: (target, name, value) => {
      target[name] = value;
      return true;
    },
  });
  Object.defineProperty(HTMLCanvasElement.prototype, "getContext", { configurable: true, value: () => context });
  written.restore = () => {
    if (before) Object.defineProperty(HTMLCanvasElement.prototype, "getContext", before);
  };
  return written;
}
