/**
 * Sets the horizontal places of a ranked drawing anew, so that its tallest path is one straight column.
 *
 * dagre keeps long edges straight at any price: in a net of many skip connections every box then stands half a width
 * beside the one before, and the drawing runs away sideways. Here the boxes of the tallest path stay put and the wires
 * make way. Ranks and the order within them stay as dagre found them.
 */

/** A box, a port, or the place where a wire passes a rank. */
export interface Item {
  rank: number; // ranks in drawing order, any numbers
  x: number; // centre
  half: number; // half of its width
  /** Height of a box; 0 for a port or a wire that passes. */
  height: number;
}

/** Items that follow each other along one edge, from its maker to its consumer. */
export type Chain = readonly Item[];

const SWEEPS = 10;
const PULL = { boxes: 8, wire: 4, end: 1 }; // between two boxes' neighbours, within a wire, where a wire meets a box
const HELD = 1e4; // weight of the column against what pulls at it

/** Moves the items, the column to 0; `gap` is the least distance between two neighbours of a rank. */
export function straighten(items: readonly Item[], chains: readonly Chain[], gap: (a: Item, b: Item) => number): void {
  const ranks = byRank(items);
  const column = tallestPath(chains);
  if (column.size === 0) return;
  shear(ranks, column);
  const links = linksOf(chains);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    // Down, each follows what feeds it; up, what it feeds: a side branch becomes straight in one sweep.
    const side = sweep % 2 === 0 ? "above" : "below";
    const order = side === "above" ? ranks : ranks.toReversed();
    for (const rank of order) settle(rank, column, links[side], gap);
  }
}

type Links = ReadonlyMap<Item, { to: Item; pull: number }[]>;

function byRank(items: readonly Item[]): Item[][] {
  const found = new Map<number, Item[]>();
  for (const item of items) {
    const rank = found.get(item.rank);
    if (rank) rank.push(item);
    else found.set(item.rank, [item]);
  }
  const ranks = [...found.entries()].sort(([a], [b]) => a - b).map(([, rank]) => rank);
  for (const rank of ranks) rank.sort((a, b) => a.x - b.x);
  return ranks;
}

/** Returns the items of the path of the tallest boxes, the places where its wires pass ranks among them. */
function tallestPath(chains: readonly Chain[]): ReadonlySet<Item> {
  const leaving = new Map<Item, Chain[]>();
  for (const chain of chains) {
    const from = chain[0] as Item;
    if ((chain[chain.length - 1] as Item).rank <= from.rank) continue; // an edge back is no way on
    leaving.set(from, [...(leaving.get(from) ?? []), chain]);
  }
  const best = new Map<Item, { height: number; next: Chain | null }>();
  const starts = [...leaving.keys()].sort((a, b) => b.rank - a.rank); // consumers first
  const from = (item: Item): { height: number; next: Chain | null } =>
    best.get(item) ?? { height: item.height, next: null };
  for (const item of starts) {
    let found = { height: item.height, next: null as Chain | null };
    for (const chain of leaving.get(item) ?? []) {
      const height = item.height + from(chain[chain.length - 1] as Item).height;
      if (height > found.height || !found.next) found = { height, next: chain }; // as far as it goes, to the border too
    }
    best.set(item, found);
  }
  let start: Item | undefined;
  for (const item of best.keys()) if (!start || from(item).height >= from(start).height) start = item; // from the border
  const column = new Set<Item>();
  for (let at = start; at; ) {
    column.add(at);
    const { next } = from(at);
    for (const item of next ?? []) column.add(item);
    at = next ? next[next.length - 1] : undefined;
  }
  return column;
}

/** Moves each rank as a whole, so that the column stands straight at 0. */
function shear(ranks: readonly Item[][], column: ReadonlySet<Item>): void {
  const centres = ranks.map((rank) => rank.find((item) => column.has(item))?.x);
  let known = centres.find((x) => x !== undefined) ?? 0;
  ranks.forEach((rank, at) => {
    known = centres[at] ?? known;
    for (const item of rank) item.x -= known;
  });
}

/** Returns by item what pulls at it from the ranks above, and from those below. */
function linksOf(chains: readonly Chain[]): { above: Links; below: Links } {
  const above = new Map<Item, { to: Item; pull: number }[]>();
  const below = new Map<Item, { to: Item; pull: number }[]>();
  const link = (from: Item, to: Item, pull: number): void => {
    const side = to.rank < from.rank ? above : below;
    const known = side.get(from);
    if (known) known.push({ to, pull });
    else side.set(from, [{ to, pull }]);
  };
  for (const chain of chains) {
    const short = chain.length <= 3; // one wire between neighbouring ranks
    for (let at = 1; at < chain.length; at++) {
      const [a, b] = [chain[at - 1] as Item, chain[at] as Item];
      const pull = short ? PULL.boxes : at === 1 || at === chain.length - 1 ? PULL.end : PULL.wire;
      link(a, b, pull);
      link(b, a, pull);
    }
  }
  return { above, below };
}

/** Brings the items of a rank as near as they can come to where their neighbours pull them, in their order. */
function settle(
  rank: readonly Item[],
  column: ReadonlySet<Item>,
  links: Links,
  gap: (a: Item, b: Item) => number,
): void {
  // Least squares under "each at least so far right of the one before": pool adjacent violators.
  const pools: { wanted: number; weight: number; count: number }[] = [];
  const offsets: number[] = [];
  let offset = 0;
  rank.forEach((item, at) => {
    const before = rank[at - 1];
    if (before) offset += before.half + gap(before, item) + item.half;
    offsets.push(offset);
    let pool = { ...wish(item, column, links), count: 1 };
    pool.wanted -= offset;
    for (let last = pools.at(-1); last && last.wanted > pool.wanted; last = pools.at(-1)) {
      pools.pop();
      const weight = last.weight + pool.weight;
      const wanted = (last.wanted * last.weight + pool.wanted * pool.weight) / weight;
      pool = { wanted, weight, count: last.count + pool.count };
    }
    pools.push(pool);
  });
  let at = 0;
  for (const { wanted, count } of pools) {
    for (let i = 0; i < count; i++, at++) (rank[at] as Item).x = wanted + (offsets[at] as number);
  }
}

function wish(item: Item, column: ReadonlySet<Item>, links: Links): { wanted: number; weight: number } {
  if (column.has(item)) return { wanted: 0, weight: HELD };
  let [sum, weight] = [0, 0];
  for (const { to, pull } of links.get(item) ?? []) {
    sum += to.x * pull;
    weight += pull;
  }
  return weight > 0 ? { wanted: sum / weight, weight } : { wanted: item.x, weight: 1 };
}
