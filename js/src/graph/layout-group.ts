/** One scope group laid out by dagre: where its children lie, and by which points the edges between them pass. */
import { layout as dagre, Graph } from "@dagrejs/dagre";
import type { GroupGraph } from "./layout-edges";
import { type Laned, type Lanes, lanesOf, laneWays } from "./layout-lanes";
import { type Chain, type Item, straighten } from "./layout-straight";

export interface Size {
  width: number;
  height: number;
}

/** Positions relative to the content of the group, its top left corner being 0, 0. */
export interface GroupLayout extends Size {
  /** x of the column that the longest path makes. */
  axis: number;
  x: number[]; // left of each child
  y: number[]; // top of each child
  /** Points between the boxes, by pair of `GroupGraph.pairs`: x0, y0, x1, y1, ... */
  between: number[][];
  /** By entering edge bundle (`GroupGraph.ins`) and leaving one: likewise, from or to the border. */
  entering: number[][];
  leaving: number[][];
  /** x of each port on the upper and on the lower border. */
  portsIn: number[];
  portsOut: number[];
}

const NODE_GAP = 26;
const RANK_GAP = 30;
const EDGE_GAP = 14;
const PORT = 6; // width that a wire takes on a border
const BEYOND = 6; // how far wires may run above and below the boxes
const MOST_CHILDREN = 300; // beyond, dagre takes seconds
const COLUMNS_GAP = 40;
const OUTSIDE = 1e7; // left or right of all that dagre placed

/** Returns the layout of a group whose children have these sizes. */
export function layoutGroup(graph: GroupGraph, sizes: readonly Size[]): GroupLayout {
  if (sizes.length === 0 || sizes.length > MOST_CHILDREN) return rows(graph, sizes);
  try {
    return ranked(graph, sizes);
  } catch (error) {
    // dagre recurses along paths and may run out of stack on a shape that nobody foresaw: a plain drawing beats none.
    console.warn("Precision Explorer: a scope is drawn in rows, its layout failed.", error);
    return rows(graph, sizes);
  }
}

function ranked(graph: GroupGraph, sizes: readonly Size[]): GroupLayout {
  const g = new Graph({ multigraph: true });
  g.setGraph({ rankdir: "TB", nodesep: NODE_GAP, ranksep: RANK_GAP, edgesep: EDGE_GAP, marginx: 0, marginy: 0 });
  sizes.forEach(({ width, height }, child) => {
    g.setNode(`c${child}`, { width, height });
  });
  const lanes = lanesOf(graph);
  graph.ins.forEach(({ port }, at) => {
    if (!lanes.ins.has(at)) g.setNode(`i${port}`, { width: PORT, height: 0 });
  });
  graph.outs.forEach(({ port }, at) => {
    if (!lanes.outs.has(at)) g.setNode(`o${port}`, { width: PORT, height: 0 });
  });
  const taken = new Set<number>();
  const giving = new Set<number>();
  const edge = (from: string, to: string, name: string, weight: number, minlen = 1): void => {
    g.setEdge(from, to, { weight, minlen, width: 0, height: 0 }, name);
  };
  graph.pairs.forEach(({ from, to }, at) => {
    edge(`c${from}`, `c${to}`, `p${at}`, 2);
    giving.add(from);
    taken.add(to);
  });
  graph.ins.forEach(({ port, child }, at) => {
    if (!lanes.ins.has(at)) edge(`i${port}`, `c${child}`, `in${at}`, 1);
    taken.add(child);
  });
  graph.outs.forEach(({ port, child }, at) => {
    if (!lanes.outs.has(at)) edge(`c${child}`, `o${port}`, `out${at}`, 1);
    giving.add(child);
  });
  // Ports belong to the borders: a node above all else and one below all else hold them there, no box beside them.
  const [above, below] = [graph.portsIn.length > 0, graph.portsOut.length > 0];
  if (above) {
    g.setNode("top", { width: 0, height: 0 });
    graph.portsIn.forEach((_, port) => {
      if (g.hasNode(`i${port}`)) edge("top", `i${port}`, `ti${port}`, 40);
    });
    sizes.forEach((_, child) => {
      if (!taken.has(child)) edge("top", `c${child}`, `tc${child}`, 0, 2);
    });
  }
  if (below) {
    g.setNode("bottom", { width: 0, height: 0 });
    graph.portsOut.forEach((_, port) => {
      if (g.hasNode(`o${port}`)) edge(`o${port}`, "bottom", `bo${port}`, 40);
    });
    sizes.forEach((_, child) => {
      if (!giving.has(child)) edge(`c${child}`, "bottom", `bc${child}`, 0, 2);
    });
  }
  dagre(g);
  return measured(graph, sizes, g, lanes);
}

/** Reads what dagre found, set straight and cropped to the boxes and ports. */
function measured(graph: GroupGraph, sizes: readonly Size[], g: Graph, lanes: Lanes): GroupLayout {
  const items = new Map<string, Item>();
  for (const name of g.nodes()) {
    const { x, y, width, height } = g.node(name) as Size & { x: number; y: number };
    items.set(name, { rank: y, x, half: width / 2, height });
  }
  const chain = (from: string, to: string, name: string): Chain => {
    const { points } = g.edge(from, to, name) as { points: { x: number; y: number }[] };
    const passed = points.slice(1, -1).map(({ x, y }) => ({ rank: y, x, half: 0, height: 0 }));
    return [items.get(from) as Item, ...passed, items.get(to) as Item];
  };
  const beside = layLanes(graph, lanes, items);
  const chains = {
    between: graph.pairs.map(({ from, to }, at) => chain(`c${from}`, `c${to}`, `p${at}`)),
    entering: graph.ins.map(({ port, child }, at) => beside.ins.get(at) ?? chain(`i${port}`, `c${child}`, `in${at}`)),
    leaving: graph.outs.map(({ port, child }, at) => beside.outs.get(at) ?? chain(`c${child}`, `o${port}`, `out${at}`)),
  };
  const all = [...chains.between, ...chains.entering, ...chains.leaving];
  items.delete("top");
  items.delete("bottom");
  const passing = all.flatMap((way) => way.slice(1, -1));
  straighten([...items.values(), ...passing], all, (a, b) => (a.height && b.height ? NODE_GAP : EDGE_GAP));
  const halves = new Map<number, number>(); // by rank: half of the height of its tallest box
  sizes.forEach(({ height }, child) => {
    const { rank } = items.get(`c${child}`) as Item;
    halves.set(rank, Math.max(halves.get(rank) ?? 0, height / 2));
  });
  const left = min([...items.values(), ...passing].map(({ x, half }) => x - half));
  const right = -min([...items.values(), ...passing].map(({ x, half }) => -x - half));
  const top = min(sizes.map(({ height }, child) => (items.get(`c${child}`) as Item).rank - height / 2));
  const bottom = -min(sizes.map(({ height }, child) => -(items.get(`c${child}`) as Item).rank - height / 2));
  // Ports stand on ranks of their own; what lies beyond the boxes is drawn in the frame's padding.
  const down = (y: number): number => Math.min(Math.max(y - top, -BEYOND), bottom - top + BEYOND);
  const way = (passed: Chain): number[] => {
    const [from, to] = [passed[0] as Item, passed[passed.length - 1] as Item];
    const points = [Number.NaN, down(from.rank + (halves.get(from.rank) ?? 0))];
    for (const { x, rank } of passed.slice(1, -1)) {
      // Within a rank a wire goes straight down, beside the boxes; it moves sideways only between the ranks.
      const half = halves.get(rank) ?? 0;
      points.push(x - left, down(rank - half));
      if (half > 0) points.push(x - left, down(rank + half));
    }
    return [...points, Number.NaN, down(to.rank - (halves.get(to.rank) ?? 0))];
  };
  const place = (name: string): Item => items.get(name) as Item;
  return {
    axis: -left,
    width: right - left,
    height: bottom - top,
    x: sizes.map(({ width }, child) => place(`c${child}`).x - width / 2 - left),
    y: sizes.map(({ height }, child) => place(`c${child}`).rank - height / 2 - top),
    between: chains.between.map(way),
    entering: chains.entering.map(way),
    leaving: chains.leaving.map(way),
    portsIn: graph.portsIn.map((_, port) => place(`i${port}`).x - left),
    portsOut: graph.portsOut.map((_, port) => place(`o${port}`).x - left),
  };
}

/**
 * Returns the ways of wires that dagre has not seen, by position: what enters for many on the left, the rest on the
 * right, where a skip connection left the scope that it comes from.
 */
function layLanes(
  graph: GroupGraph,
  lanes: Lanes,
  items: Map<string, Item>,
): Record<"ins" | "outs", Map<number, Chain>> {
  const children = graph.children.map((_, child) => items.get(`c${child}`) as Item);
  const ranks = [...new Set(children.map(({ rank }) => rank))].sort((a, b) => a - b);
  const fed = graph.portsIn.map(() => 0);
  for (const { port } of graph.ins) fed[port] = (fed[port] as number) + 1;
  const lay = (side: "ins" | "outs", prefix: "i" | "o", border: string): Map<number, Chain> => {
    const placed = graph[side].map(({ port }) => items.get(`${prefix}${port}`));
    const rank = (placed.find(Boolean) ?? items.get(border))?.rank ?? 0;
    const found = new Map<number, Chain>();
    const lanesOn = (held: number[], outermost: number, to: -1 | 1): void => {
      const wires = held.map((at): Laned => {
        const { port, child } = graph[side][at] as { port: number; child: number };
        const name = `${prefix}${port}`;
        if (!items.has(name)) items.set(name, { rank, x: 0, half: PORT / 2, height: 0 });
        return { child: children[child] as Item, port: items.get(name) as Item, placed: Boolean(placed[at]) };
      });
      laneWays(wires, ranks, outermost, to).forEach((way, lane) => {
        found.set(held[lane] as number, way);
      });
    };
    const many = (at: number): boolean => side === "ins" && (fed[graph.ins[at]?.port ?? 0] as number) > 1;
    const held = [...lanes[side]];
    lanesOn(held.filter(many), -OUTSIDE, -1);
    lanesOn(
      held.filter((at) => !many(at)),
      side === "ins" ? OUTSIDE : 2 * OUTSIDE,
      1,
    );
    return found;
  };
  return { ins: lay("ins", "i", "top"), outs: lay("outs", "o", "bottom") };
}

/** Many children: rows in execution order, their edges straight. */
function rows(graph: GroupGraph, sizes: readonly Size[]): GroupLayout {
  const columns = Math.ceil(Math.sqrt(sizes.length)) || 1;
  const x: number[] = [];
  const y: number[] = [];
  let [left, top, tallest, widest] = [0, 0, 0, 0];
  sizes.forEach(({ width, height }, child) => {
    if (child > 0 && child % columns === 0) [left, top, tallest] = [0, top + tallest + COLUMNS_GAP, 0];
    x.push(left);
    y.push(top);
    left += width + NODE_GAP;
    tallest = Math.max(tallest, height);
    widest = Math.max(widest, left - NODE_GAP);
  });
  const ends = (from: number, to: number): number[] => [
    Number.NaN,
    (y[from] as number) + (sizes[from] as Size).height,
    Number.NaN,
    y[to] as number,
  ];
  const height = top + tallest;
  const spread = (count: number): number[] =>
    Array.from({ length: count }, (_, port) => (widest * (port + 1)) / (count + 1));
  return {
    axis: widest / 2,
    width: widest,
    height,
    x,
    y,
    between: graph.pairs.map(({ from, to }) => ends(from, to)),
    entering: graph.ins.map(({ child }) => [Number.NaN, 0, Number.NaN, y[child] as number]),
    leaving: graph.outs.map(({ child }) => [
      Number.NaN,
      (y[child] as number) + (sizes[child] as Size).height,
      Number.NaN,
      height,
    ]),
    portsIn: spread(graph.portsIn.length),
    portsOut: spread(graph.portsOut.length),
  };
}

function min(values: readonly number[]): number {
  return values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
}
