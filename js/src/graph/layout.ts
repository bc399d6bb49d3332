/** Where boxes and wires lie: each unfolded scope group is laid out by itself, inside out, and alike ones only once. */
import type { Model } from "../model";
import { type EdgeWay, findWays, type GroupGraph } from "./layout-edges";
import { type GroupLayout, layoutGroup, type Size } from "./layout-group";

export interface Box {
  kind: "layer" | "group" | "input" | "output";
  /** Node of a layer, an input or an output; -1 for a group. */
  node: number;
  /** The group that this box is (kind group), or that holds it. */
  group: number;
  /** Number of open groups around it. */
  depth: number;
  /** A group that is unfolded: a frame with a title, its children inside. */
  open: boolean;
  x: number; // left
  y: number; // top
  width: number;
  height: number;
}

export interface Wire {
  from: number; // boxes
  to: number;
  /** Edges of the structure that it carries. */
  edges: number[];
  /** x0, y0, x1, y1, ...: from the bottom of `from` to the top of `to`. */
  points: number[];
}

export interface Scene {
  /** Frames before what they hold. */
  boxes: Box[];
  wires: Wire[];
  width: number;
  height: number;
  /** The box of a node, or of the folded group that hides it. */
  boxOf(node: number): number;
  /** The box of a group, or of the folded group that hides it; -1 for the root. */
  boxOfGroup(group: number): number;
}

export interface Layout {
  /** Lays out what is visible when these groups are unfolded; what was laid out before is reused. */
  scene(open: ReadonlySet<number>): Scene;
}

export const LAYER: Size = { width: 176, height: 48 };
export const FOLDED: Size = { width: 204, height: 66 };
export const PILL: Size = { width: 148, height: 28 };
export const TITLE_HEIGHT = 26;
export const PADDING = 16;
const LEAST_FRAME = 180; // pixels of width: a title needs room
const MOST_AIR = 1.5; // of the width that a frame needs
const MARGIN = 24; // around everything
const SPREAD = 16; // between the ends of wires that enter one box

interface Laid extends Size {
  layout: GroupLayout;
  left: number; // of the content within the frame
}

/** Returns the layout of a model. */
export function createLayout(model: Model): Layout {
  const ways = findWays(model);
  const cache = new Map<string, GroupLayout>();

  const layOut = (group: number, open: ReadonlySet<number>, laid: Map<number, Laid>): void => {
    const graph = ways.graphs[group] as GroupGraph;
    const sizes = graph.children.map((child): Size => {
      if (child.group < 0) return model.isLayer(child.node) ? LAYER : PILL;
      if (!open.has(child.group)) return FOLDED;
      layOut(child.group, open, laid);
      return laid.get(child.group) as Laid;
    });
    const groupSizes = sizes.filter((_, at) => (graph.children[at]?.group ?? -1) >= 0);
    const key = `${graph.shape}|${groupSizes.map(({ width, height }) => `${width}x${height}`).join()}`;
    let layout = cache.get(key);
    if (!layout) {
      layout = layoutGroup(graph, sizes);
      cache.set(key, layout);
    }
    const least = Math.max(layout.width + 2 * PADDING, LEAST_FRAME);
    const height = layout.height + TITLE_HEIGHT + 2 * PADDING;
    // The column in the middle of its frame meets the columns above and below without a bend, if that is not too wide.
    const even = 2 * (Math.max(layout.axis, layout.width - layout.axis) + PADDING);
    const centred = even <= least * MOST_AIR;
    const width = centred ? Math.max(even, least) : least;
    const left = centred ? width / 2 - layout.axis : (width - layout.width) / 2;
    laid.set(group, { layout, width, height, left });
  };

  return {
    scene(open) {
      const laid = new Map<number, Laid>();
      layOut(0, open, laid);
      return new Drawing(model, ways.graphs, ways.edges, laid).scene();
    },
  };
}

/** One scene in the making. */
class Drawing {
  private readonly boxes: Box[] = [];
  private readonly boxOfNode: Int32Array;
  private readonly groupBox: Int32Array;
  /** Top left corner of the content of each open group. */
  private readonly origin = new Map<number, { x: number; y: number }>();

  constructor(
    private readonly model: Model,
    private readonly graphs: readonly GroupGraph[],
    private readonly edges: readonly (EdgeWay | null)[],
    private readonly laid: ReadonlyMap<number, Laid>,
  ) {
    this.boxOfNode = new Int32Array(model.nodes).fill(-1);
    this.groupBox = new Int32Array(model.structure.groups.label.length).fill(-1);
  }

  scene(): Scene {
    const { layout } = this.laid.get(0) as Laid;
    this.place(0, MARGIN, MARGIN, 0);
    return {
      boxes: this.boxes,
      wires: this.wires(),
      width: layout.width + 2 * MARGIN,
      height: layout.height + 2 * MARGIN,
      boxOf: (node) => this.boxOfNode[node] ?? -1,
      boxOfGroup: (group) => this.groupBox[group] ?? -1,
    };
  }

  private place(group: number, x: number, y: number, depth: number): void {
    const graph = this.graphs[group] as GroupGraph;
    const { layout } = this.laid.get(group) as Laid;
    this.origin.set(group, { x, y });
    graph.children.forEach((child, at) => {
      const open = child.group >= 0 && this.laid.has(child.group);
      const size = open ? (this.laid.get(child.group) as Laid) : this.sizeOf(child.node);
      const box: Box = {
        kind: this.kindOf(child.node),
        node: child.node,
        group: child.group >= 0 ? child.group : group,
        depth,
        open,
        x: x + (layout.x[at] as number),
        y: y + (layout.y[at] as number),
        width: size.width,
        height: size.height,
      };
      const index = this.boxes.push(box) - 1;
      if (child.group < 0) this.boxOfNode[child.node] = index;
      else if (open) {
        this.groupBox[child.group] = index;
        const { left } = this.laid.get(child.group) as Laid;
        this.place(child.group, box.x + left, box.y + TITLE_HEIGHT + PADDING, depth + 1);
      } else this.hide(child.group, index);
    });
  }

  /** All that a folded group holds is found at its box. */
  private hide(group: number, index: number): void {
    this.groupBox[group] = index;
    for (const layer of this.model.childLayers[group] ?? []) this.boxOfNode[layer] = index;
    for (const inner of this.model.childGroups[group] ?? []) this.hide(inner, index);
  }

  private kindOf(node: number): Box["kind"] {
    if (node < 0) return "group";
    return this.model.isLayer(node) ? "layer" : this.model.isInput(node) ? "input" : "output";
  }

  private sizeOf(node: number): Size {
    if (node < 0) return FOLDED;
    return this.model.isLayer(node) ? LAYER : PILL;
  }

  private wires(): Wire[] {
    const { from, to } = this.model.structure.edges;
    const wires = new Map<number, Wire>();
    this.edges.forEach((way, edge) => {
      const a = this.boxOfNode[from[edge] as number] ?? -1;
      const b = this.boxOfNode[to[edge] as number] ?? -1;
      if (!way || a === b || a < 0 || b < 0) return;
      const key = a * this.boxes.length + b;
      const known = wires.get(key);
      if (known) known.edges.push(edge);
      else wires.set(key, { from: a, to: b, edges: [edge], points: this.route(way, a, b) });
    });
    const all = [...wires.values()];
    this.spread(all);
    return all;
  }

  /** Returns the way of an edge between two boxes: out of open groups, across, and into open groups. */
  private route(way: EdgeWay, from: number, to: number): number[] {
    const [a, b] = [this.boxes[from] as Box, this.boxes[to] as Box];
    const points = [a.x + a.width / 2, a.y + a.height];
    for (const { group, at } of way.leaves) {
      const inside = this.laid.get(group);
      if (!inside) continue; // folded: the wire starts at a box further out
      const port = this.graphs[group]?.outs[at]?.port ?? 0;
      this.follow(points, group, inside.layout.leaving[at] as number[]);
      const frame = this.boxes[this.groupBox[group] as number] as Box;
      points.push(frame.x + inside.left + (inside.layout.portsOut[port] as number), frame.y + frame.height);
    }
    const across = this.laid.get(way.group) as Laid;
    this.follow(points, way.group, across.layout.between[way.pair] as number[]);
    for (const { group, at } of way.enters) {
      const inside = this.laid.get(group);
      if (!inside) break;
      const port = this.graphs[group]?.ins[at]?.port ?? 0;
      const frame = this.boxes[this.groupBox[group] as number] as Box;
      const x = frame.x + inside.left + (inside.layout.portsIn[port] as number);
      this.arrive(points, x, frame.y);
      points.push(x, frame.y + TITLE_HEIGHT);
      this.follow(points, group, inside.layout.entering[at] as number[]);
    }
    this.arrive(points, b.x + b.width / 2, b.y);
    return points;
  }

  /** Appends points of a group's layout; its first and last say only how far down the ends' ranks reach. */
  private follow(points: number[], group: number, way: readonly number[]): void {
    const { x, y } = this.origin.get(group) as { x: number; y: number };
    const leave = y + (way[1] as number);
    if (leave > (points[points.length - 1] as number)) points.push(points[points.length - 2] as number, leave);
    for (let i = 2; i < way.length - 2; i += 2) points.push(x + (way[i] as number), y + (way[i + 1] as number));
    this.rankTop = y + (way[way.length - 1] as number);
  }

  private rankTop = 0;
  /** Ways whose last two points are one straight piece down, beside taller boxes. */
  private readonly bent = new Set<number[]>();

  /** Ends at the top of a box, straight from above: sideways only above everything that stands beside it. */
  private arrive(points: number[], x: number, y: number): void {
    const beside = this.rankTop < y;
    if (beside) points.push(x, this.rankTop);
    points.push(x, y);
    if (beside) this.bent.add(points);
    else this.bent.delete(points);
  }

  /** Ends of several wires at one box stand apart, in the order in which they come. */
  private spread(wires: readonly Wire[]): void {
    const arriving = new Map<number, Wire[]>();
    for (const wire of wires) {
      if (!arriving.has(wire.to)) arriving.set(wire.to, []);
      arriving.get(wire.to)?.push(wire);
    }
    for (const [to, several] of arriving) {
      if (several.length < 2) continue;
      const box = this.boxes[to] as Box;
      const before = ({ points }: Wire): number => {
        const end = points[points.length - 2] as number;
        for (let i = points.length - 4; i >= 0; i -= 2) if (points[i] !== end) return points[i] as number;
        return end;
      };
      several.sort((p, q) => before(p) - before(q));
      const step = Math.min(SPREAD, (box.width - 40) / (several.length - 1));
      several.forEach(({ points }, at) => {
        const end = points[points.length - 2] as number;
        const shift = (at - (several.length - 1) / 2) * step;
        points[points.length - 2] = end + shift;
        if (this.bent.has(points)) points[points.length - 4] = end + shift;
      });
    }
  }
}
