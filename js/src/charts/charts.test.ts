import { describe, expect, it } from "vitest";
import type { LayerValues } from "../protocol";
import { LIGHT } from "../theme";
import { agreementSpec, scaleOf } from "./agreement";
import { axisRange, histogramSpec } from "./histogram";
import { niceTicks } from "./layout";
import { type Axes, type Point, tradeoffSpec } from "./tradeoff";

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
  const axes: Axes = { x: "latency", y: "sqnr", xTitle: "latency", yTitle: "output SQNR, dB" };
  const point = (index: number, x: number, y: number, current = false): Point => ({
    index,
    x,
    y,
    current,
    hover: [`<b>${index}`],
  });

  it("stands exact plans above and broken ones below all others", () => {
    const { data, layout } = tradeoffSpec(
      [point(0, 1, 1 / 0), point(1, 2, -1 / 0), point(2, 3, 40, true), point(3, 4, 20)],
      axes,
      LIGHT,
    );
    const [others, current] = data as {
      y: number[];
      customdata: number[];
      hovertext: string[];
      marker: { symbol: string[] };
    }[];
    expect(others?.customdata).toEqual([0, 1, 3]);
    expect(others?.y).toEqual([44, 16, 20]);
    expect(others?.marker.symbol).toEqual(["circle", "x", "circle"]);
    expect(others?.hovertext[0]).toBe("&#60;b&#62;0");
    expect(current?.customdata).toEqual([2]);
    expect((layout.yaxis as { ticktext: string[] }).ticktext.slice(-2)).toEqual(["exact", "not finite"]);
  });

  it("draws a single plan, and plans that are all broken", () => {
    for (const y of [30, -1 / 0]) {
      const { yaxis, xaxis } = tradeoffSpec([point(0, 5, y, true)], axes, LIGHT).layout as Record<
        string,
        { range: number[] }
      >;
      for (const axis of [xaxis, yaxis]) {
        expect(axis?.range.every(Number.isFinite)).toBe(true);
        expect(axis?.range[0]).toBeLessThan(axis?.range[1] as number);
      }
    }
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
