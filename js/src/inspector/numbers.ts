/** How the inspector writes a number: the same figure reads the same in every tab, and as in the report. */
import type { Num } from "../protocol";

export const ABSENT = "–";
/** Between a figure and its unit: narrow, and a line never ends there. */
const SPACE = "\u202f";
const MINUS = "−";
const SUPERSCRIPT: Record<string, string> = {
  "-": "⁻",
  "0": "⁰",
  "1": "¹",
  "2": "²",
  "3": "³",
  "4": "⁴",
  "5": "⁵",
  "6": "⁶",
  "7": "⁷",
  "8": "⁸",
  "9": "⁹",
};
const BYTES = ["B", "kB", "MB", "GB", "TB"];

/** Returns a number that JSON carried; NaN for what is not known. */
export function float(value: Num | undefined): number {
  if (value === null || value === undefined || value === "nan") return Number.NaN;
  return value === "inf" ? Number.POSITIVE_INFINITY : value === "-inf" ? Number.NEGATIVE_INFINITY : value;
}

/** Returns an integer in superscript digits: -24 is ⁻²⁴. */
export function superscript(value: number): string {
  return [...String(value)].map((digit) => SUPERSCRIPT[digit] ?? digit).join("");
}

/** Returns a power of two as the axes write it. */
export function powerOfTwo(exponent: number): string {
  return exponent === 0 ? "1" : `2${superscript(exponent)}`;
}

/** Returns a value with some significant digits; a power of ten outside 0.001 to 1,000,000, words if not finite. */
export function quantity(value: number, digits = 3): string {
  if (Number.isNaN(value)) return ABSENT;
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : `${MINUS}infinite`;
  if (value === 0) return "0";
  const [mantissa = "", power = "0"] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (exponent >= -3 && exponent < 6) {
    const rounded = Number(value.toPrecision(Math.max(digits, exponent + 1)));
    return rounded.toLocaleString("en", { maximumFractionDigits: 12 }).replace("-", MINUS);
  }
  const factor =
    Math.abs(Number(mantissa)) === 1 ? mantissa.replace(/[\d.]/g, "") : `${Number(mantissa)}${SPACE}×${SPACE}`;
  return `${factor}10${superscript(exponent)}`.replace("-", MINUS);
}

/** Returns a count with separators of thousands. */
export function count(value: number): string {
  return Number.isNaN(value) ? ABSENT : value.toLocaleString("en");
}

/** Returns a number with its noun: "1 layer", "2,200 layers". */
export function plural(value: number, noun: string, many = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : many}`;
}

/** Returns a signal-to-noise ratio: "41.3 dB", "exact", "not finite", "not measured". */
export function sqnr(db: number): string {
  if (Number.isNaN(db)) return "not measured";
  if (db === Number.NEGATIVE_INFINITY) return "not finite";
  if (db === Number.POSITIVE_INFINITY) return "exact";
  return `${fixed(db, 1)}${SPACE}dB`;
}

/** Returns an error in the units of the values: a figure, "not finite" or "not measured". */
export function deviation(value: number): string {
  if (Number.isNaN(value)) return "not measured";
  return Number.isFinite(value) ? quantity(value) : "not finite";
}

/** Returns a relative error: percent, or a power of ten where it is below 0.01 %. */
export function relative(value: number): string {
  if (!Number.isFinite(value) || value === 0) return deviation(value);
  return value >= 1e-4 && value < 100 ? `${quantity(value * 100)}${SPACE}%` : quantity(value);
}

/** Returns a relative error as the search writes it: "1.0e-3", "0", "not finite"; Python reads it back. */
export function errorFigure(value: number): string {
  if (Number.isNaN(value)) return ABSENT;
  if (!Number.isFinite(value)) return "not finite";
  return value === 0 ? "0" : value.toExponential(1).replace("e+0", "").replace("e+", "e");
}

/** Returns a relative error in dB of SQNR: 1e-3 is 60. */
export function decibels(error: number): number {
  return -20 * Math.log10(error);
}

/** Returns a relative error with its dB: "1.0e-3 (60 dB)". */
export function errorWithDb(value: number): string {
  if (value === 0) return "exact";
  return value > 0 && Number.isFinite(value)
    ? `${errorFigure(value)} (${fixed(decibels(value), 0)}${SPACE}dB)`
    : errorFigure(value);
}

/** Returns a share in percent; 100 % and 0 % only when they are exact. */
export function share(ratio: number): string {
  if (Number.isNaN(ratio)) return ABSENT;
  if (ratio === 0) return `0${SPACE}%`;
  if (ratio >= 0.9995 && ratio < 1) return `>${SPACE}99.9${SPACE}%`;
  if (ratio < 1e-4) return `<${SPACE}0.01${SPACE}%`;
  return `${quantity(ratio * 100, ratio < 0.1 ? 2 : 3)}${SPACE}%`;
}

/** Returns a time that is given in microseconds, in the unit that suits it. */
export function duration(us: number): string {
  if (Number.isNaN(us)) return ABSENT;
  const [scale, unit] = us < 1e3 ? [1, "µs"] : us < 1e6 ? [1e-3, "ms"] : [1e-6, "s"];
  return `${quantity(us * scale)}${SPACE}${unit}`;
}

/** Returns a time that may be lost instead of gained: "−3.2 µs". */
export function gain(us: number): string {
  return us < 0 ? `${MINUS}${duration(-us)}` : duration(us);
}

/** Returns a size in decimal units. */
export function size(bytes: number): string {
  let value = bytes;
  let step = 0;
  for (; value >= 1000 && step < BYTES.length - 1; step++) value /= 1000;
  return `${quantity(value)}${SPACE}${BYTES[step]}`;
}

/** Returns a number to some decimals, never "−0.0". */
export function fixed(value: number, decimals: number): string {
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", MINUS);
}
