/** What each scope group's layout depends on, whatever is unfolded: its children and the edges between them. */
import type { Model } from "../model";

/** A child of a group: a node, or a group. */
export interface Child {
  node: number; // -1 for a group
  group: number; // -1 for a node
}

export interface GroupGraph {
  children: Child[];
  /** Joined children, by their positions. */
  pairs: { from: number; to: number }[];
  /** Tensors that enter from outside and leave to outside; each has a place on the border. */
  portsIn: number[];
  portsOut: number[];
  ins: { port: number; child: number }[];
  outs: { port: number; child: number }[];
  /** The same for groups that are drawn alike when their child groups are of the same sizes. */
  shape: string;
}

/** Where an edge passes: the group in which its ends are different children, and the way there from either end. */
export interface EdgeWay {
  group: number;
  pair: number;
  /** From the maker outwards, innermost first: (group, position in its `outs`). */
  leaves: { group: number; at: number }[];
  /** To the consumer inwards, outermost first: (group, position in its `ins`). */
  enters: { group: number; at: number }[];
}

export interface Ways {
  graphs: GroupGraph[];
  /** By edge; null where both ends are the same node. */
  edges: (EdgeWay | null)[];
}

/** Returns the graph of every group, and the way of every edge. */
export function findWays(model: Model): Ways {
  const { edges } = model.structure;
  const places = new Map<string, number>();
  const graphs = model.childLayers.map((_, group) => emptyGraph(model, group, places));
  const pairs = new Map<string, number>();
  const ports = new Map<string, number>();
  const placeOf = (group: number, child: number, isGroup: boolean): number =>
    places.get(`${group} ${isGroup ? "g" : "n"}${child}`) as number;
  const once = (index: Map<string, number>, key: string, add: () => number): number => {
    const known = index.get(key);
    if (known !== undefined) return known;
    const made = add();
    index.set(key, made);
    return made;
  };
  const through = (side: "In" | "Out", group: number, child: number, tensor: number): number => {
    const graph = graphs[group] as GroupGraph;
    const [borders, list] = side === "In" ? [graph.portsIn, graph.ins] : [graph.portsOut, graph.outs];
    const port = once(ports, `${side}${group} ${tensor}`, () => borders.push(tensor) - 1);
    return once(ports, `${side}${group} ${tensor} ${child}`, () => list.push({ port, child }) - 1);
  };
  const ways = edges.from.map((from, edge): EdgeWay | null => {
    const [to, tensor] = [edges.to[edge] as number, edges.tensor[edge] as number];
    if (from === to) return null;
    const up = model.lineage(model.groupOf(from));
    const down = model.lineage(model.groupOf(to));
    let shared = 1;
    while (
      shared < up.length &&
      shared < down.length &&
      up[up.length - 1 - shared] === down[down.length - 1 - shared]
    ) {
      shared++;
    }
    // up[0 .. i) are left, down[0 .. j) entered; the group above both holds both ends.
    const [i, j] = [up.length - shared, down.length - shared];
    const group = up[i] as number;
    const child = (line: number[], level: number, node: number): number =>
      level === 0
        ? placeOf(line[0] as number, node, false)
        : placeOf(line[level] as number, line[level - 1] as number, true);
    const leaves = [];
    for (let level = 0; level < i; level++) {
      const inside = up[level] as number;
      leaves.push({ group: inside, at: through("Out", inside, child(up, level, from), tensor) });
    }
    const enters = [];
    for (let level = j - 1; level >= 0; level--) {
      const inside = down[level] as number;
      enters.push({ group: inside, at: through("In", inside, child(down, level, to), tensor) });
    }
    const [a, b] = [child(up, i, from), child(down, j, to)];
    const pair = once(
      pairs,
      `${group} ${a} ${b}`,
      () => (graphs[group] as GroupGraph).pairs.push({ from: a, to: b }) - 1,
    );
    return { group, pair, leaves, enters };
  });
  for (const graph of graphs) graph.shape = shapeOf(model, graph);
  return { graphs, edges: ways };
}

function emptyGraph(model: Model, group: number, places: Map<string, number>): GroupGraph {
  const held: [number, Child][] = (model.childLayers[group] ?? []).map((node) => [node, { node, group: -1 }]);
  for (const inner of model.childGroups[group] ?? []) held.push([firstLayer(model, inner), { node: -1, group: inner }]);
  held.sort(([a], [b]) => a - b);
  const children = held.map(([, child]) => child);
  if (group === 0) {
    const { inputs, outputs } = model.structure;
    children.unshift(...inputs.name.map((_, at) => ({ node: model.layers + at, group: -1 })));
    children.push(...outputs.name.map((_, at) => ({ node: model.layers + inputs.name.length + at, group: -1 })));
  }
  children.forEach((child, place) => {
    places.set(`${group} ${child.group >= 0 ? `g${child.group}` : `n${child.node}`}`, place);
  });
  return { children, pairs: [], portsIn: [], portsOut: [], ins: [], outs: [], shape: "" };
}

/** Returns the first layer of a group in execution order; groups are ordered by it. */
function firstLayer(model: Model, group: number): number {
  let first = model.childLayers[group]?.[0] ?? Number.POSITIVE_INFINITY;
  for (const inner of model.childGroups[group] ?? []) first = Math.min(first, firstLayer(model, inner));
  return first;
}

function shapeOf(model: Model, graph: GroupGraph): string {
  const kind = ({ node, group }: Child): string => (group >= 0 ? "g" : model.isLayer(node) ? "l" : "p");
  return [
    graph.children.map(kind).join(""),
    graph.pairs.map(({ from, to }) => `${from}-${to}`).join(),
    graph.ins.map(({ port, child }) => `${port}-${child}`).join(),
    graph.outs.map(({ port, child }) => `${child}-${port}`).join(),
  ].join("|");
}
