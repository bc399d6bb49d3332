/** Ramps of colour: luminance carries the value, so that they read without hue. */
import type { Quantity } from "./store";
import { parseColour, type Rgb } from "./theme";

/** Errors: pale is harmless. Own ramps, luminance falls (light) or rises (dark) all the way, so that they read without hue. */
const ERROR_RAMP = {
  light: ["#f4f6e4", "#cfe5bd", "#86c7a8", "#4094a8", "#2f5f98", "#2b2b70"],
  dark: ["#262d36", "#2b4663", "#2f7088", "#52a48d", "#a5cf74", "#f6ed92"],
};
const LATENCY_RAMP = {
  light: ["#fbf3e9", "#f6d5b0", "#e3a26f", "#ba6c4c", "#7f4040", "#48232f"],
  dark: ["#2c2725", "#56392e", "#8b5237", "#c17640", "#e9aa5b", "#fce5a8"],
};
/** Time lost (blue), none, and time saved (orange): the two hues that every kind of sight tells apart. */
const SAVING_RAMP = {
  light: ["#1f4e8c", "#6a9bcb", "#cfdeeb", "#f5f3ee", "#f3d3ac", "#d58d4a", "#8f4a12"],
  dark: ["#9cc9f2", "#5b93c4", "#33536f", "#2a2d31", "#6d4a27", "#bd7f3c", "#ffc783"],
};
const STEPS = 256;

/** Returns a ramp of the quantity as `STEPS` colours, harmless first; of time saved, what is lost first. */
export function ramp(quantity: Quantity, dark: boolean): readonly string[] {
  const stops = quantity === "latency" ? LATENCY_RAMP : quantity === "saves" ? SAVING_RAMP : ERROR_RAMP;
  const key = `${quantity === "latency" || quantity === "saves" ? quantity : ""}|${dark}`;
  let made = ramps.get(key);
  if (!made) {
    made = interpolate(dark ? stops.dark : stops.light, STEPS);
    ramps.set(key, made);
  }
  return made;
}
const ramps = new Map<string, readonly string[]>();

/** Returns the value, or the nearer of 0 and 1. */
export function clamp(value: number): number {
  return Math.min(1, Math.max(0, value));
}

/** Returns the colour at a position, 0 to 1. */
export function at(colours: readonly string[], position: number): string {
  return colours[Math.round(position * (colours.length - 1))] as string;
}

/** Returns `steps` colours through the stops, evenly spaced in OKLab (B. Ottosson, 2020). */
function interpolate(stops: readonly string[], steps: number): string[] {
  const points = stops.map((stop) => toOklab(parseColour(stop) ?? [0, 0, 0]));
  return Array.from({ length: steps }, (_, step) => {
    const way = (step / (steps - 1)) * (points.length - 1);
    const before = Math.min(Math.floor(way), points.length - 2);
    const [a, b] = [points[before] as Rgb, points[before + 1] as Rgb];
    return fromOklab(a.map((part, axis) => part + ((b[axis] as number) - part) * (way - before)) as unknown as Rgb);
  });
}

function toOklab([red, green, blue]: Rgb): Rgb {
  const [r, g, b] = [red, green, blue].map((part) => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromOklab([lightness, a, b]: Rgb): string {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const [red, green, blue] = linear.map((part) => {
    const c = part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055;
    return Math.round(255 * clamp(c));
  });
  return `rgb(${red}, ${green}, ${blue})`;
}
