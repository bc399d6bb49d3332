import { describe, expect, it } from "vitest";
import type { LayerValues } from "../protocol";
import { LIGHT } from "../theme";
import { agreementSpec, scaleOf } from "./agreement";
import { axisRange, histogramSpec } from "./histogram";
import { niceTicks } from "./layout";
import { type Axes, decades, type Front, type FrontMark, NO_FRONT, type Point, tradeoffSpec } from "./tradeoff";

const FP16 = { overflow: 65520, normal: 2 ** -14, subnormal: 2 ** -25 };
const BF16 = { overflow: 2 ** 128, normal: 2 ** -126, subnormal: 2 ** -134 };
const histogram = (
  first: number,
  exact: number[],
  more: Partial<LayerValues["histogram"]> = {},
): LayerValues["histogram"] => ({
  first,
  exact,
  plan: null,
  exact_zeros: 0,
  plan_zeros: null,
  exact_nonfinite: 0,
  plan_nonfinite: null,
  ...more,
});
const text = (layout: Record<string, unknown>): string[] =>
  (layout.annotations as { text: string }[]).map((one) => one.text);

describe("the histogram", () => {
  it("shows all of fp16, but of a format as wide as bf16 only where the values are", () => {
    const [from, to] = axisRange({ histogram: histogram(-3, [1, 2]), bands: FP16, format: "fp16" });
    expect([from, Math.round(to)]).toEqual([-27, 18]);
    expect(axisRange({ histogram: histogram(-3, [1, 2]), bands: BF16, format: "bf16" })).toEqual([-5, 1]);
    expect(axisRange({ histogram: histogram(0, []), bands: FP16, format: "fp16" })[0]).toBe(-27);
  });

  it("names a band only where its name fits, so that labels never overlap", () => {
    const data = { histogram: histogram(-3, [1, 2]), bands: FP16, format: "fp16" };
    expect(text(histogramSpec(data, LIGHT, 900).layout)).toEqual(["→ 0", "subnormal", "normal", "over"]);
    expect(text(histogramSpec(data, LIGHT, 180).layout)).toEqual(["sub.", "normal"]);
  });

  it("puts zeros and what is not finite beside the axis, and only where there are any", () => {
    const none = histogramSpec({ histogram: histogram(-3, [4]), bands: FP16, format: "fp16" }, LIGHT, 400);
    expect((none.data[0] as { x: number[] }).x).toEqual([-2.5]);
    const some = histogram(-3, [4], { plan: [3], exact_zeros: 5, plan_zeros: 5, plan_nonfinite: 1 });
    const { data, layout } = histogramSpec({ histogram: some, bands: FP16, format: "fp16" }, LIGHT, 400);
    const bars = data[0] as { x: number[]; y: number[]; hovertext: string[] };
    expect(bars.y).toEqual([4, 5, 0]);
    expect(bars.x[1]).toBeLessThan(-27);
    expect(bars.x[2]).toBeGreaterThan(18);
    expect(bars.hovertext[2]).toBe("inf, NaN: 0 values in fp32, 1 under the plan");
    expect((layout.xaxis as { ticktext: string[] }).ticktext.slice(-2)).toEqual(["0", "∞"]);
  });

  it("draws a layer whose values are all zero", () => {
    const zeros = histogram(0, [], { exact_zeros: 7 });
    expect(
      (histogramSpec({ histogram: zeros, bands: FP16, format: "fp16" }, LIGHT, 400).data[0] as { y: number[] }).y,
    ).toEqual([7]);
  });
});

describe("the scatter", () => {
  it("is linear for values of one size, logarithmic on both sides of zero for others", () => {
    expect(scaleOf(Float32Array.of(1, 2, -3)).to(2)).toBe(2);
    const wide = scaleOf(Float32Array.of(0.01, -0.02, 0.03, 5000));
    expect(wide.to(-5000)).toBeCloseTo(-wide.to(5000));
    expect(wide.to(5000) / wide.to(0.02)).toBeLessThan(20);
    expect(wide.ticks.map((tick) => tick.text)).toContain("−1,000");
    expect(scaleOf(new Float32Array(3)).ticks[0]?.text).toBe("0");
  });

  it("stands infinities and NaN at the edge, each with its mark, and leaves out what is not finite in fp32", () => {
    const points = {
      exact: Float32Array.of(1, 2, -3, 4, 1 / 0),
      plan: Float32Array.of(1, 1 / 0, -1 / 0, Number.NaN, 1 / 0),
      total: 5,
    };
    const { data, layout } = agreementSpec(points, "fp16", LIGHT);
    const bad = data[2] as { y: number[]; hovertext: string[]; marker: { symbol: string[] } };
    expect(bad.marker.symbol).toEqual(["triangle-up-open", "triangle-up-open", "x-thin-open"]);
    expect(bad.y[0]).toBeGreaterThan(4);
    expect(bad.y[1]).toBeLessThan(-3);
    expect(bad.hovertext[2]).toBe("fp32 4 → fp16 NaN");
    expect((layout.yaxis as { ticktext: string[] }).ticktext.slice(-2)).toEqual(["+∞ NaN", "−∞"]);
    expect((data[1] as { x: number[] }).x).toEqual([1]);
  });
});

describe("the trade-off", () => {
  const axes: Axes = { x: "latency", y: "error", xTitle: "latency", yTitle: "output error" };
  const point = (index: number, x: number, y: number, current = false): Point => ({
    index,
    x,
    y,
    current,
    hover: [`<b>${index}`],
  });
  interface Trace {
    name: string;
    x: number[];
    y: number[];
    customdata: string[];
    hovertext: string[];
    opacity: number;
    marker: { symbol: string[] };
  }
  const drawn = (points: Point[], front: Partial<Front> = {}, on: Axes = axes) => {
    const { data, layout } = tradeoffSpec(points, { ...NO_FRONT, ...front }, on, LIGHT);
    const traces = new Map((data as Trace[]).map((trace) => [trace.name, trace]));
    return { traces, layout: layout as Record<string, { ticktext: string[]; tickvals: number[]; range: number[] }> };
  };

  it("stands exact plans below and broken ones above all others, on an axis of powers of ten", () => {
    const points = [point(0, 1, 0), point(1, 2, 1 / 0), point(2, 3, 1e-2, true), point(3, 4, 1e-4)];
    const { traces, layout } = drawn(points);
    const others = traces.get("tried");
    expect(others?.customdata).toEqual(["tried 0", "tried 1", "tried 3"]);
    expect(others?.y.map((y) => y.toFixed(2))).toEqual(["-4.40", "-1.60", "-4.00"]);
    expect(others?.marker.symbol).toEqual(["diamond", "x", "diamond"]);
    expect(others?.hovertext[0]).toBe("&#60;b&#62;0");
    expect(traces.get("current")?.customdata).toEqual(["tried 2"]);
    expect(layout.yaxis?.ticktext.slice(-2)).toEqual(["exact", "not finite"]);
    expect(layout.yaxis?.ticktext).toContain("1e-3");
  });

  it("draws the front over what was predicted: filled where it was run, hollow where not", () => {
    const mark = (index: number, x: number, predicted: number, measured: number): FrontMark => ({
      index,
      x,
      predicted,
      measured,
      hover: [`<i>${index}`],
    });
    const marks = [mark(0, 9, 1e-4, 2e-4), mark(1, 5, 1e-3, Number.NaN), mark(2, 7, 5e-4, 6e-4)];
    const { traces } = drawn([], { marks });
    expect(traces.get("predicted")?.customdata).toEqual(["front 0", "front 1", "front 2"]);
    expect(traces.get("measured")?.customdata).toEqual(["front 0", "front 2"]);
    expect(traces.get("measured")?.hovertext[0]).toBe("&#60;i&#62;0");
    const line = traces.get("front");
    expect(line?.x).toEqual([5, 7, 9]);
    expect(line?.y.map((y) => 10 ** y)).toEqual([1e-3, 6e-4, 2e-4].map((y) => expect.closeTo(y, 9)));
    expect(drawn([], { marks, stale: true }).traces.get("measured")?.opacity).toBeLessThan(0.5);
    const look = { x: 6, y: 7e-4, budget: 8e-4 };
    const looking = drawn([], { marks, preview: look });
    expect(looking.traces.get("preview")?.x).toEqual([6]);
    expect(looking.layout.shapes).toHaveLength(1);
  });

  it("marks 2 and 5 between powers of ten that are near each other, and leaves some out that are far", () => {
    expect(decades(-3.2, -2).map((tick) => (10 ** tick).toPrecision(1))).toEqual(["0.001", "0.002", "0.005", "0.01"]);
    expect(decades(-30, -2).length).toBeLessThan(8);
  });

  it("draws a single plan, plans that are all broken, and an exact one alone", () => {
    for (const y of [1e-2, 1 / 0, 0]) {
      const { layout } = drawn([point(0, 5, y, true)]);
      for (const axis of [layout.xaxis, layout.yaxis]) {
        expect(axis?.range.every(Number.isFinite)).toBe(true);
        expect(axis?.range[0]).toBeLessThan(axis?.range[1] as number);
      }
    }
  });

  it("shows accuracy upwards as shares", () => {
    const { layout } = drawn([point(0, 5, 0.9), point(1, 6, 0.98, true)], {}, { ...axes, y: "metric" });
    expect(layout.yaxis?.ticktext[0]).toMatch(/%$/);
  });
});

describe("ticks", () => {
  it("are round, and inside", () => {
    expect(niceTicks(-3.2, 51, 4)).toEqual([0, 20, 40]);
    expect(niceTicks(0.94, 0.96, 4).map((tick) => tick.toFixed(3))).toEqual([
      "0.940",
      "0.945",
      "0.950",
      "0.955",
      "0.960",
    ]);
    expect(niceTicks(2, 2, 4)).toEqual([2]);
  });
});
