/**
 * Which wires between the border of a scope and its children run in lanes of their own, beside all boxes.
 *
 * dagre lets a long edge take a place in every rank that it passes. Thirty skip connections out of thirty units make it
 * spend most of its time on them, and in the end they stand side by side to the left or the right all the same.
 */
import type { GroupGraph } from "./layout-edges";
import type { Chain, Item } from "./layout-straight";

const MANY = 100; // ranks that such wires pass, all together; fewer, and dagre places them well in little time

export interface Lanes {
  /** Positions in `GroupGraph.ins` and `GroupGraph.outs`. */
  ins: ReadonlySet<number>;
  outs: ReadonlySet<number>;
}

const NONE: Lanes = { ins: new Set(), outs: new Set() };

/** Returns the wires that dagre need not see: children that others feed, or that feed others, keep their ranks. */
export function lanesOf(graph: GroupGraph): Lanes {
  if (graph.pairs.some(({ from, to }) => from >= to)) return NONE; // in a cycle a child has no depth
  const depth = depths(graph);
  const deepest = depth.reduce((most, each) => Math.max(most, each), 0);
  const giving = new Set(graph.pairs.map(({ from }) => from));
  let passed = 0;
  const passing = (ends: readonly { child: number }[], span: (child: number) => number): Set<number> => {
    const found = new Set<number>();
    ends.forEach(({ child }, at) => {
      if (span(child) === 0) return;
      found.add(at);
      passed += span(child);
    });
    return found;
  };
  const ins = passing(graph.ins, (child) => depth[child] as number);
  const outs = passing(graph.outs, (child) => (giving.has(child) ? deepest - (depth[child] as number) : 0));
  return passed < MANY ? NONE : { ins, outs };
}

/** Returns how many children feed each other up to each child; they come in execution order. */
function depths(graph: GroupGraph): number[] {
  const depth = graph.children.map(() => 0);
  for (const { from, to } of graph.pairs.toSorted((a, b) => a.from - b.from)) {
    depth[to] = Math.max(depth[to] as number, (depth[from] as number) + 1);
  }
  return depth;
}

/** A wire in a lane: the child that it joins to the border, and its port, which may have a place already. */
export interface Laned {
  child: Item;
  port: Item;
  placed: boolean;
}

/** Returns the ways of wires in lanes: those that pass most ranks outermost, so that none crosses another. */
export function laneWays(wires: readonly Laned[], ranks: readonly number[], outermost: number, side: -1 | 1): Chain[] {
  const length = ({ child, port }: Laned): number => Math.abs(child.rank - port.rank);
  const order = wires.map((_, at) => at).sort((a, b) => length(wires[a] as Laned) - length(wires[b] as Laned) || a - b);
  const ways: Chain[] = [];
  order.forEach((at, lane) => {
    const { child, port, placed } = wires[at] as Laned;
    const x = outermost + side * (lane + 1);
    if (!placed) port.x = x; // the last wire of a port is its outermost
    const [first, last] = port.rank < child.rank ? [port, child] : [child, port];
    const passed = ranks.filter((rank) => rank > first.rank && rank < last.rank);
    ways[at] = [first, ...passed.map((rank) => ({ rank, x, half: 0, height: 0 })), last];
  });
  return ways;
}
