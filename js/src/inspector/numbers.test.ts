import { describe, expect, it } from "vitest";
import {
  count,
  deviation,
  duration,
  errorFigure,
  errorWithDb,
  fixed,
  float,
  gain,
  plural,
  powerOfTwo,
  quantity,
  relative,
  share,
  size,
  sqnr,
} from "./numbers";

/** Narrow spaces are told apart from others in the source only by their code. */
const plain = (text: string): string => text.replaceAll("\u202f", " ");

describe("numbers", () => {
  it("have three significant digits, separators, a true minus, and powers of ten where they are long", () => {
    const cases: [number, string][] = [
      [0, "0"],
      [65504, "65,504"],
      [-0.00612, "−0.00612"],
      [123.456, "123"],
      [999.96, "1,000"],
      [4.2e6, "4.2 × 10⁶"],
      [-1e-8, "−10⁻⁸"],
      [9.9999e-6, "10⁻⁵"],
      [Number.NaN, "–"],
      [Number.NEGATIVE_INFINITY, "−infinite"],
    ];
    for (const [value, text] of cases) expect(plain(quantity(value))).toBe(text);
    expect(quantity(65504, 5)).toBe("65,504");
  });

  it("say in words what is not finite, not known or without error", () => {
    expect([sqnr(Number.NaN), sqnr(-1 / 0), sqnr(1 / 0), plain(sqnr(-3.21))]).toEqual([
      "not measured",
      "not finite",
      "exact",
      "−3.2 dB",
    ]);
    expect(plain(sqnr(-0.04))).toBe("0.0 dB");
    expect([deviation(1 / 0), deviation(Number.NaN), relative(1 / 0), relative(0)]).toEqual([
      "not finite",
      "not measured",
      "not finite",
      "0",
    ]);
    expect([plain(relative(2e-4)), plain(relative(3e-7))]).toEqual(["0.02 %", "3 × 10⁻⁷"]);
  });

  it("never round nearly all to all, nor something to nothing", () => {
    expect([0, 1, 0.99999, 1e-6, 0.9866].map((ratio) => plain(share(ratio)))).toEqual([
      "0 %",
      "100 %",
      "> 99.9 %",
      "< 0.01 %",
      "98.7 %",
    ]);
  });

  it("choose the unit of times and sizes", () => {
    expect([4.2, 1990, 2.5e6, Number.NaN].map((us) => plain(duration(us)))).toEqual([
      "4.2 µs",
      "1.99 ms",
      "2.5 s",
      "–",
    ]);
    expect([812, 97_780_000].map((bytes) => plain(size(bytes)))).toEqual(["812 B", "97.8 MB"]);
    expect([plural(1, "layer"), plural(2200, "layer"), count(12345), powerOfTwo(-24), fixed(-0.01, 1)]).toEqual([
      "1 layer",
      "2,200 layers",
      "12,345",
      "2⁻²⁴",
      "0.0",
    ]);
  });

  it("come from JSON with their words", () => {
    expect([float("inf"), float("-inf"), float("nan"), float(null), float(3)]).toEqual([
      1 / 0,
      -1 / 0,
      Number.NaN,
      Number.NaN,
      3,
    ]);
  });

  it("write a relative error as Python reads it, with its dB, and time that is lost with its sign", () => {
    expect([1e-3, 4.76e-4, 0, 1.3, 130, Number.POSITIVE_INFINITY, Number.NaN].map(errorFigure)).toEqual([
      "1.0e-3",
      "4.8e-4",
      "0",
      "1.3",
      "1.3e2",
      "not finite",
      "–",
    ]);
    expect([1e-3, 0, Number.POSITIVE_INFINITY].map(errorWithDb)).toEqual([
      "1.0e-3 (60\u202fdB)",
      "exact",
      "not finite",
    ]);
    expect([-3.2, 0, 4500, Number.NaN].map(gain)).toEqual(["−3.2\u202fµs", "0\u202fµs", "4.5\u202fms", "–"]);
  });
});
