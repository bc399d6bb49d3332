import { describe, expect, it, vi } from "vitest";
import { Model } from "../model";
import type { Structure } from "../protocol";
import { transformer } from "../testing/fixture";
import { groupsIn, initialOpen } from "./groups";
import { type Box, createLayout, type Scene, type Wire } from "./layout";

/** A generator of numbers that are the same in every run (Lehmer, minimal standard). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

/** Layers in a random tree of scopes, each fed by up to three earlier ones; two inputs, one output. */
function randomNet(seed: number, layers: number): Structure {
  const next = numbers(seed);
  const groups = 1 + Math.floor(next() * 6);
  const s = transformer(0);
  const parent = [-1, ...Array.from({ length: groups }, (_, at) => Math.floor(next() * (at + 1)))];
  s.groups = {
    label: parent.map((_, at) => `g${at}`),
    path: parent.map((_, at) => (at ? `g${at}` : "")),
    parent,
    kind: parent.map(() => "scope"),
  };
  let group = 0;
  s.layers.group = Array.from({ length: layers }, () => {
    if (next() < 0.25) group = Math.floor(next() * (groups + 1));
    return group;
  });
  s.layers.id = s.layers.group.map((_, at) => `layer${at}`);
  s.layers.op = s.layers.group.map(() => 0);
  s.layers.source = s.layers.group.map(() => 0);
  s.layers.container = s.layers.group.map(() => -1);
  s.ops.push("Add");
  s.inputs = { name: ["a", "b"], tensor: [0, 1] };
  s.outputs = { name: ["y"], tensor: [layers + 1] };
  s.edges = { from: [], to: [], tensor: [] };
  const tensorOf = (node: number): number => (node >= layers ? node - layers : node + 2);
  const join = (from: number, to: number): void => {
    s.edges.from.push(from);
    s.edges.to.push(to);
    s.edges.tensor.push(tensorOf(from));
  };
  for (let layer = 0; layer < layers; layer++) {
    for (let take = 0; take < 1 + Math.floor(next() * 3); take++) {
      join(next() < 0.1 || layer === 0 ? layers + Math.floor(next() * 2) : Math.floor(next() * layer), layer);
    }
  }
  join(layers - 1, layers + 2);
  return s;
}

/** A chain of layers in one scope, each skipping to its mirror image in the next; one tensor feeds them all. */
function skipping(units: number): Structure {
  const s = randomNet(1, 2 * units);
  s.groups = {
    label: ["net", "down", "up"],
    path: ["", "down", "up"],
    parent: [-1, 0, 0],
    kind: ["scope", "scope", "scope"],
  };
  s.layers.group = s.layers.group.map((_, at) => (at < units ? 1 : 2));
  s.edges = { from: [], to: [], tensor: [] };
  const join = (from: number, to: number): void => {
    s.edges.from.push(from);
    s.edges.to.push(to);
    s.edges.tensor.push(from >= 2 * units ? from - 2 * units : from + 2);
  };
  for (let layer = 0; layer < 2 * units; layer++) {
    join(layer === 0 ? 2 * units : layer - 1, layer);
    if (layer > 0) join(2 * units + 1, layer);
    if (layer > units) join(2 * units - 1 - layer, layer);
  }
  join(2 * units - 1, 2 * units + 2);
  return s;
}

const within = (inner: Box, outer: Box): boolean =>
  inner.x >= outer.x &&
  inner.y >= outer.y &&
  inner.x + inner.width <= outer.x + outer.width + 0.01 &&
  inner.y + inner.height <= outer.y + outer.height + 0.01;

const apart = (a: Box, b: Box): boolean =>
  a.x + a.width <= b.x + 0.01 ||
  b.x + b.width <= a.x + 0.01 ||
  a.y + a.height <= b.y + 0.01 ||
  b.y + b.height <= a.y + 0.01;

/** Whether a wire passes through the inside of a box, by points along each of its pieces. */
function crosses({ points }: Wire, box: Box): boolean {
  for (let at = 2; at < points.length; at += 2) {
    const [x0, y0, x1, y1] = points.slice(at - 2, at + 2) as [number, number, number, number];
    const steps = Math.ceil(Math.hypot(x1 - x0, y1 - y0) / 4);
    for (let step = 0; step <= steps; step++) {
      const [x, y] = [x0 + ((x1 - x0) * step) / (steps || 1), y0 + ((y1 - y0) * step) / (steps || 1)];
      if (x > box.x + 1 && x < box.x + box.width - 1 && y > box.y + 1 && y < box.y + box.height - 1) return true;
    }
  }
  return false;
}

function everyGroup(model: Model): Set<number> {
  return new Set(groupsIn(model, 0));
}

/** Fails unless the drawing keeps its promises. */
function check(model: Model, scene: Scene, { straightDown = true } = {}): void {
  const { boxes, wires } = scene;
  const { edges, groups } = model.structure;
  const frame = (box: Box): Box | undefined => {
    const holder = box.kind === "group" ? (groups.parent[box.group] as number) : box.group;
    return holder > 0 ? boxes[scene.boxOfGroup(holder)] : undefined;
  };
  for (const box of boxes) {
    expect([box.x, box.y, box.width, box.height].every(Number.isFinite)).toBe(true);
    const outer = frame(box);
    if (outer) expect(within(box, outer)).toBe(true);
  }
  // Pairs are many: one expectation for all, else the test takes seconds.
  const frames = boxes.map(frame);
  const overlapping = boxes.flatMap((a, i) => boxes.filter((b, j) => j > i && frames[i] === frames[j] && !apart(a, b)));
  expect(overlapping).toEqual([]);
  const carried = wires.flatMap((wire) => wire.edges);
  const wireOf = new Map(wires.flatMap((wire) => wire.edges.map((edge) => [edge, wire] as const)));
  expect(new Set(carried).size).toBe(carried.length);
  edges.from.forEach((from, edge) => {
    const [a, b] = [scene.boxOf(from), scene.boxOf(edges.to[edge] as number)];
    const wire = wireOf.get(edge);
    if (a === b) expect(wire).toBeUndefined();
    else expect([wire?.from, wire?.to]).toEqual([a, b]);
  });
  for (const wire of wires) {
    const [from, to] = [boxes[wire.from] as Box, boxes[wire.to] as Box];
    const { points } = wire;
    expect(points[1]).toBeCloseTo(from.y + from.height);
    expect(points.at(-1)).toBeCloseTo(to.y);
    expect(points.at(-2)).toBeGreaterThan(to.x);
    expect(points.at(-2)).toBeLessThan(to.x + to.width);
    if (!straightDown) continue;
    for (let at = 3; at < points.length; at += 2) {
      expect(points[at] as number).toBeGreaterThanOrEqual((points[at - 2] as number) - 0.01);
    }
    for (const box of boxes) if (!box.open && box !== from && box !== to) expect(crosses(wire, box)).toBe(false);
  }
}

declare const process: { cpuUsage(): { user: number } };

/** Time of the processor: on a busy machine it does not count what others take. */
function spentMs(): number {
  return process.cpuUsage().user / 1000;
}

describe("layout", () => {
  it.each([1, 3])("keeps its promises on a transformer of %i blocks, folded, half open and open", (blocks) => {
    const model = new Model(transformer(blocks));
    const layout = createLayout(model);
    for (const open of [new Set([0]), initialOpen(model, 20), everyGroup(model)]) check(model, layout.scene(open));
  });

  it.each(Array.from({ length: 40 }, (_, seed) => seed + 1))("keeps its promises on random net %i", (seed) => {
    const model = new Model(randomNet(seed, 8 + seed));
    const layout = createLayout(model);
    const some = new Set([...everyGroup(model)].filter((group) => group === 0 || (group * seed) % 3));
    for (const open of [new Set([0]), everyGroup(model), some]) {
      // Scopes of a random net feed each other both ways, and then some wires must lead up.
      const scene = layout.scene(open);
      const up = scene.wires.some(({ points }) =>
        points.some((y, at) => at % 2 === 1 && at > 1 && y < (points[at - 2] as number) - 0.01),
      );
      check(model, scene, { straightDown: !up });
    }
  });

  it("draws a chain as one straight column, whatever skips beside it", () => {
    const s = randomNet(1, 30);
    s.layers.group.fill(0);
    s.groups = { label: ["net"], path: [""], parent: [-1], kind: ["scope"] };
    s.edges = { from: [30], to: [0], tensor: [0] };
    for (let layer = 1; layer < 30; layer++) {
      s.edges.from.push(layer - 1, ...(layer < 16 ? [] : [29 - layer]));
      while (s.edges.to.length < s.edges.from.length) s.edges.to.push(layer);
      while (s.edges.tensor.length < s.edges.from.length) s.edges.tensor.push(2);
    }
    s.edges.from.push(29);
    s.edges.to.push(32);
    s.edges.tensor.push(31);
    const model = new Model(s);
    const scene = createLayout(model).scene(new Set([0]));
    check(model, scene);
    const lefts = new Set(scene.boxes.filter(({ kind }) => kind === "layer").map(({ x }) => Math.round(x)));
    expect(lefts.size).toBe(1);
  });

  it.each([12, 24, 40])(
    "keeps its promises where %i skips leave one scope, enter another, and run in lanes",
    (units) => {
      const model = new Model(skipping(units));
      const layout = createLayout(model);
      const scene = layout.scene(everyGroup(model));
      check(model, scene);
      const xs = scene.boxes.filter(({ kind }) => kind === "layer").map(({ x }) => x);
      expect(Math.max(...xs) - Math.min(...xs)).toBeLessThan(2); // one column, through both scopes
    },
  );

  it("lays out forty skips, a thousand ranks passed, in little time", () => {
    const model = new Model(skipping(40));
    const begun = spentMs();
    createLayout(model).scene(everyGroup(model));
    expect(spentMs() - begun).toBeLessThan(800); // about 100; through dagre 1500
  });

  it("is the same each time, and lays out alike scopes alike", () => {
    const model = new Model(transformer(4));
    const open = everyGroup(model);
    const scene = createLayout(model).scene(open);
    expect(createLayout(model).scene(open)).toEqual({
      ...scene,
      boxOf: expect.any(Function),
      boxOfGroup: expect.any(Function),
    });
    const inner = (path: string): number[] => {
      const frame = scene.boxes[scene.boxOfGroup(model.structure.groups.path.indexOf(path))] as Box;
      return scene.boxes
        .filter((box) => box !== frame && within(box, frame))
        .flatMap(({ x, y }) => [x - frame.x, y - frame.y]);
    };
    inner("blocks/1/norm1").forEach((place, at) => {
      expect(place).toBeCloseTo(inner("blocks/2/norm1")[at] as number);
    });
  });

  it("draws a group of very many children in rows, in little time", () => {
    const s = randomNet(3, 900);
    s.layers.group.fill(0);
    const model = new Model(s);
    const begun = spentMs();
    const scene = createLayout(model).scene(new Set([0]));
    expect(spentMs() - begun).toBeLessThan(2000);
    check(model, scene, { straightDown: false });
  });

  it("draws rows where dagre fails", async () => {
    vi.resetModules();
    vi.doMock("@dagrejs/dagre", async (original) => ({
      ...(await original<object>()),
      layout: () => {
        throw new RangeError("Maximum call stack size exceeded");
      },
    }));
    const told = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const { createLayout: fresh } = await import("./layout");
    const model = new Model(transformer(2));
    check(model, fresh(model).scene(everyGroup(model)), { straightDown: false });
    expect(told).toHaveBeenCalled();
    vi.doUnmock("@dagrejs/dagre");
    told.mockRestore();
  });
});

describe("what is unfolded at the start", () => {
  it("shows a small model whole, and of a large one the first scopes", () => {
    const small = new Model(transformer(2));
    expect(initialOpen(small)).toEqual(everyGroup(small));
    const large = new Model(transformer(40));
    const open = initialOpen(large);
    const visible = createLayout(large)
      .scene(open)
      .boxes.filter((box) => !box.open).length;
    expect(visible).toBeGreaterThan(50);
    expect(visible).toBeLessThanOrEqual(150);
    const first = large.structure.groups.path.indexOf("blocks/0/norm1");
    expect(open.has(first) || open.has(large.structure.groups.path.indexOf("blocks/0"))).toBe(true);
  });
});
