/** Ways along edges: where an arrow key leads, and which boxes the edges of the selection truly join. */
import type { Box } from "./layout";
import type { View } from "./view";

export type Direction = "up" | "down" | "left" | "right";

/** With more layers selected than this their edges would be a web, and nobody could follow one. */
const TRACED = 60;

/** Returns the box that an arrow key leads to; -1 if there is none. */
export function neighbourOf(view: View, from: number, direction: Direction): number {
  const here = view.scene.boxes[from];
  if (!here) return -1;
  if (direction === "up" || direction === "down") return along(view, from, here, direction);
  return beside(view, from, here, direction);
}

/** Follows an edge, the one to the nearest box: an edge of a layer may leave the scope that holds it. */
function along(view: View, from: number, here: Box, direction: "up" | "down"): number {
  const { model } = view.store;
  const { edges } = model.structure;
  const nodes = here.kind === "group" ? model.layersIn(here.group) : [here.node];
  let [best, nearest] = [-1, Number.POSITIVE_INFINITY];
  for (const node of nodes) {
    for (const edge of (direction === "up" ? model.entering : model.leaving)[node] ?? []) {
      const at = view.scene.boxOf((direction === "up" ? edges.from : edges.to)[edge] ?? -1);
      const box = view.scene.boxes[at];
      if (!box || at === from) continue;
      const gap = direction === "up" ? here.y - box.y - box.height : box.y - here.y - here.height;
      // An edge back (of a loop) is followed only where no other leads on.
      const distance = (gap < 0 ? 1e6 : 0) + Math.abs(gap) + Math.abs(middle(box) - middle(here)) / 4;
      if (distance < nearest) [best, nearest] = [at, distance];
    }
  }
  return best;
}

/** Returns the next box at about the same height. */
function beside(view: View, from: number, here: Box, direction: "left" | "right"): number {
  const strip = { x: -1e9, y: here.y, width: 2e9, height: here.height };
  let [best, nearest] = [-1, Number.POSITIVE_INFINITY];
  for (const at of view.rows.find(strip).boxes) {
    const box = view.scene.boxes[at] as Box;
    const gap = direction === "right" ? box.x - here.x - here.width : here.x - box.x - box.width;
    if (at === from || gap < 0) continue;
    const distance = gap + Math.abs(box.y + box.height / 2 - here.y - here.height / 2) / 4;
    if (distance < nearest) [best, nearest] = [at, distance];
  }
  return best;
}

function middle(box: Box): number {
  return box.x + box.width / 2;
}

/** Returns the ways of the selected layers' edges between the nearest visible boxes, however far away they are. */
export function trueEdgesOf(view: View): number[][] {
  const { scene } = view;
  const { model, selection } = view.store;
  if (selection.size === 0 || selection.size > TRACED) return [];
  const { from, to } = model.structure.edges;
  const pairs = new Map<string, [number, number]>();
  for (const layer of selection) {
    for (const edge of [...(model.entering[layer] ?? []), ...(model.leaving[layer] ?? [])]) {
      const pair: [number, number] = [scene.boxOf(from[edge] ?? -1), scene.boxOf(to[edge] ?? -1)];
      if (pair[0] >= 0 && pair[1] >= 0 && pair[0] !== pair[1]) pairs.set(pair.join(" "), pair);
    }
  }
  const ways: number[][] = [];
  for (const wire of scene.wires) {
    if (pairs.delete(`${wire.from} ${wire.to}`)) ways.push(wire.points);
  }
  // Where the layout draws no wire (an edge back in a loop), straight across.
  for (const pair of pairs.values()) ways.push(direct(...(pair.map((at) => scene.boxes[at]) as [Box, Box])));
  return ways;
}

/** Returns the way from the bottom of one box to the top of another. */
function direct(from: Box, to: Box): number[] {
  return [middle(from), from.y + from.height, middle(to), to.y];
}
