import { describe, expect, it } from "vitest";
import { errorText, missing, OKABE_ITO, plainReason, scaleFor, shareText } from "./colours";
import type { Figures } from "./protocol";
import { ramp } from "./ramps";
import { QUANTITIES, Store } from "./store";
import { FakeSource, transformer } from "./testing/fixture";
import { inkOn, luminance, parseColour } from "./theme";

function storeWith(change: Partial<Figures> = {}): Store {
  const source = new FakeSource(transformer(2));
  const figures = { ...source.figures(), ...change };
  source.figures = () => figures;
  return new Store(source);
}

describe("colours", () => {
  it("are colours for every layer, quantity and theme, whatever the figures hold", () => {
    const odd = [Number.NaN, Infinity, -Infinity, 0, -400, 1e30];
    const column = Float32Array.from({ length: 54 }, (_, at) => odd[at % odd.length] as number);
    const store = storeWith({
      local_sqnr_db: column,
      acc_sqnr_db: column,
      sensitivity_db: column,
      plan_us: column,
      saves_us: column,
      costs: column,
    });
    for (const quantity of QUANTITIES) {
      for (const dark of [false, true]) {
        const scale = scaleFor(store, quantity, dark);
        for (let layer = -1; layer < 60; layer++) {
          expect(parseColour(scale.fill(layer)), `${quantity} ${layer}`).not.toBeNull();
          expect(scale.text(scale.value(layer))).not.toMatch(/NaN(?!$)|undefined/);
        }
      }
    }
  });

  it("grow darker (light theme) or lighter (dark theme) with the error, all the way", () => {
    for (const quantity of ["accumulated", "latency", "costs"] as const) {
      for (const dark of [false, true]) {
        const lights = ramp(quantity, dark).map(luminance);
        const steps = lights.slice(1).map((light, at) => (light - (lights[at] as number)) * (dark ? 1 : -1));
        expect(Math.min(...steps)).toBeGreaterThan(-0.004); // rounding to 8 bits
        expect(Math.abs((lights.at(-1) as number) - (lights[0] as number))).toBeGreaterThan(0.5);
      }
    }
  });

  it("tell inf/NaN, unknown and exact apart", () => {
    const column = new Float32Array(54).fill(40);
    column.set([-Infinity, Number.NaN, Infinity], 0);
    const scale = scaleFor(storeWith({ acc_sqnr_db: column }), "accumulated", false);
    const fills = [0, 1, 2, 3].map((layer) => scale.fill(layer));
    expect(new Set(fills).size).toBe(4);
    expect([0, 1, 2].map((layer) => scale.text(scale.value(layer)))).toEqual(["inf/NaN", "", "exact"]);
    expect(scale.entries.map(({ text, count }) => [text, count])).toEqual([
      ["inf/NaN", 1],
      ["not known", 1],
    ]);
  });

  it("put the worst first among two values, and the known one before the unknown", () => {
    const scale = scaleFor(storeWith(), "local", false);
    expect(scale.worse(-Infinity, 70)).toBe(-Infinity);
    expect(scale.worse(Number.NaN, 70)).toBe(70);
    expect(scaleFor(storeWith(), "latency", false).worse(0.1, 0.2)).toBe(0.2);
  });

  it("shares of latency add up to one", () => {
    const store = storeWith();
    const scale = scaleFor(store, "latency", false);
    const sum = Array.from({ length: store.model.layers }, (_, layer) => scale.value(layer)).reduce((a, b) => a + b);
    expect(sum).toBeCloseTo(1, 5);
  });

  it("say why a quantity cannot be shown", () => {
    expect(missing(storeWith(), "sensitivity")).toMatch(/search/);
    expect(missing(storeWith(), "costs")).toMatch(/search for the best plans/);
    const searched = new FakeSource(transformer(2));
    searched.findFront();
    searched.figures().saves_us = new Float32Array(0);
    expect(missing(new Store(searched), "saves")).toMatch(/choose a GPU/);
    expect(missing(new Store(searched), "costs")).toBe("");
    expect(missing(storeWith({ latencyProvenance: "" }), "latency")).toMatch(/GPU/);
    expect(missing(storeWith({ errorsRevision: -1 }), "accumulated")).toMatch(/Not run/);
    expect(missing(storeWith({ errorsRevision: -1 }), "format")).toBe("");
  });

  it("tell time saved from time lost by hue and by place, and errors that layers add on a log axis", () => {
    const saves_us = Float32Array.from({ length: 54 }, (_, at) => [4, 1, 0, -1, -4, Number.NaN][at % 6] as number);
    const saves = scaleFor(storeWith({ saves_us }), "saves", false);
    expect([0, 1, 2, 3, 4].map((layer) => saves.position(saves.value(layer)))).toEqual([1, 0.75, 0.5, 0.25, 0]);
    const rgb = (layer: number): number[] => [...(parseColour(saves.fill(layer)) ?? [])];
    expect((rgb(0)[0] as number) - (rgb(0)[2] as number)).toBeGreaterThan(60); // orange
    expect((rgb(4)[2] as number) - (rgb(4)[0] as number)).toBeGreaterThan(60); // blue
    expect(saves.text(-4)).toBe("−4\u202fµs");
    expect(saves.worse(4, -4)).toBe(4);
    expect(saves.entries).toMatchObject([{ text: "not known", count: 9 }]);
    const costs_ = [3e-3, 1e-4, 0, Infinity, Number.NaN, 1e-9];
    const costs = scaleFor(
      storeWith({ costs: Float32Array.from({ length: 54 }, (_, at) => costs_[at % 6] as number) }),
      "costs",
      false,
    );
    expect(costs.position(1e-2)).toBe(1); // the power of ten above the costliest
    expect(costs.position(1e-4)).toBeCloseTo(0.5);
    expect([costs.position(0), costs.position(1e-9)]).toEqual([0, 0]);
    expect(costs.fill(3)).not.toBe(costs.fill(0));
    expect(costs.ticks.map(({ text }) => text)).toEqual(["≤ 10⁻⁶", "10⁻⁴", "10⁻²"]);
    expect(costs.entries.map(({ text }) => text)).toEqual(["inf/NaN", "not known"]);
  });

  it("count reasons that differ only in names as one, and never more than the palette", () => {
    const reasons = Array.from({ length: 20 }, (_, at) => `because of rule ${"x".repeat(at)}`);
    const reason = Uint16Array.from({ length: 54 }, (_, at) => at % 20);
    const scale = scaleFor(storeWith({ reasons, reason }), "reason", false);
    expect(scale.entries.length).toBe(OKABE_ITO.length + 1);
    expect(scale.entries.reduce((sum, { count }) => sum + count, 0)).toBe(54);
    const { model } = storeWith();
    const plain = (reason: string): string => plainReason(reason, model);
    expect(plain("shares 'a' with \"b\"")).toBe(plain("shares 'c' with \"d\""));
    expect(plain(`it follows ${model.name(3)}`)).toBe(plain(`it follows ${model.name(5)}`));
    expect(plain("it follows the input x")).toBe(plain(`it follows ${model.name(5)}`));
    expect(plain("the plan says so")).toBe("the plan says so");
  });

  it("leave text readable on every fill", () => {
    const contrast = (a: string, b: string): number => {
      const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
      return (light + 0.05) / (dark + 0.05);
    };
    for (const dark of [false, true]) {
      for (const colour of [...ramp("local", dark), ...ramp("latency", dark), ...ramp("saves", dark)]) {
        expect(contrast(colour, inkOn(colour))).toBeGreaterThan(4.2);
      }
    }
  });

  it("write figures with their unit, and words for what is no number", () => {
    expect([41.26, 9.98, 3.21, -1, Infinity, -Infinity, Number.NaN].map(errorText)).toEqual([
      "41\u202fdB",
      "10\u202fdB",
      "3.2\u202fdB",
      "−1.0\u202fdB",
      "exact",
      "inf/NaN",
      "",
    ]);
    expect([0, 0.00001, 0.005, 0.023, 0.5, Number.NaN].map(shareText)).toEqual([
      "0\u202f%",
      "< 0.01\u202f%",
      "0.50\u202f%",
      "2.3\u202f%",
      "50\u202f%",
      "",
    ]);
  });
});
