import { describe, expect, it } from "vitest";
import { between, bounded, boundedScale, fitted, MAX_SCALE, panned, toScreen, toWorld, zoomedAt } from "./camera";

const VIEW = { width: 800, height: 600 };
const TALL = { width: 400, height: 100_000 };

describe("camera", () => {
  it("keeps the point under the pointer when it zooms", () => {
    const before = { x: 120, y: 4000, scale: 0.7 };
    const point = toWorld(before, 333, 250);
    for (const scale of [0.01, 0.3, 1, 2.9]) {
      const after = toScreen(zoomedAt(before, 333, 250, scale), point.x, point.y);
      expect(after.x).toBeCloseTo(333);
      expect(after.y).toBeCloseTo(250);
    }
  });

  it("moves what is seen with the pointer, at any scale", () => {
    const before = { x: 0, y: 0, scale: 0.25 };
    const after = toScreen(panned(before, 30, -40), 100, 100);
    expect(after).toEqual({ x: 100 * 0.25 + 30, y: 100 * 0.25 - 40 });
  });

  it("shows a fitted rectangle whole and centred", () => {
    const rect = { x: 500, y: 100, width: 3000, height: 900 };
    const camera = fitted(rect, VIEW);
    const [first, last] = [toScreen(camera, 500, 100), toScreen(camera, 3500, 1000)];
    expect(first.x).toBeGreaterThan(0);
    expect(last.x).toBeLessThan(VIEW.width);
    expect(first.x + last.x).toBeCloseTo(VIEW.width);
    expect(first.y + last.y).toBeCloseTo(VIEW.height);
  });

  it("cannot lose the graph, and shows a small one whole", () => {
    const far = bounded({ x: 1e9, y: -1e9, scale: 1 }, TALL, VIEW);
    expect(far.y).toBeGreaterThan(-100);
    expect(far.x).toBeLessThan(TALL.width);
    const small = bounded({ x: 5000, y: 5000, scale: 1 }, { width: 100, height: 50 }, VIEW);
    const corner = toScreen(small, 100, 50);
    expect(corner.x).toBeGreaterThan(0);
    expect(corner.y).toBeGreaterThan(0);
  });

  it("bounds the scale between the whole graph and three pixels a unit", () => {
    expect(boundedScale(1e9, TALL, VIEW)).toBe(MAX_SCALE);
    expect(boundedScale(0, TALL, VIEW)).toBeGreaterThan(0);
    expect(boundedScale(0, TALL, VIEW) * TALL.height).toBeLessThanOrEqual(VIEW.height);
  });

  it("glides from one view exactly to the other", () => {
    const [from, to] = [
      { x: 0, y: 0, scale: 1 },
      { x: 300, y: 7000, scale: 0.4 },
    ];
    for (const [share, expected] of [
      [0, from],
      [1, to],
    ] as const) {
      const at = between(from, to, share, VIEW);
      for (const key of ["x", "y", "scale"] as const) expect(at[key]).toBeCloseTo(expected[key]);
    }
  });
});
