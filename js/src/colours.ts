/** What a layer's colour means: from a quantity to a scale, shared by the graph, its legend and the table. */
import type { Model } from "./model";
import type { Figures } from "./protocol";
import type { Quantity, Store } from "./store";
import { LIGHT, mix, parseColour, type Rgb } from "./theme";

export const QUANTITY_LABEL: Record<Quantity, string> = {
  local: "local error",
  accumulated: "accumulated error",
  sensitivity: "sensitivity",
  latency: "share of latency",
  format: "format",
  reason: "reason",
};

export interface LegendEntry {
  colour: string;
  text: string;
  count: number;
}

export interface Scale {
  readonly quantity: Quantity;
  readonly label: string;
  readonly kind: "sequential" | "categorical";
  /** Why nothing can be shown; "" when it can. */
  readonly missing: string;
  readonly provenance: string;
  /** What the quantity is of a layer: dB, share of latency, index of the category; NaN where it is not known. */
  value(layer: number): number;
  /** Colour of a layer's box; grey where nothing is known. */
  fill(layer: number): string;
  /** Colour of a value (or of a category's index). */
  colour(value: number): string;
  /** A value in words: "41 dB", "exact", "inf/NaN", "2.3 %", "fp16"; "" where it is not known. */
  text(value: number): string;
  /** Position of a value on the legend's ramp, 0 (harmless) to 1; NaN for what is not on it. */
  position(value: number): number;
  /** The worse of two values; unknown ones lose. */
  worse(a: number, b: number): number;
  /** Marks along the legend's ramp. */
  readonly ticks: readonly { at: number; text: string }[];
  /** Categories, or what stands beside the ramp. */
  readonly entries: readonly LegendEntry[];
}

/** Errors: pale is harmless. Own ramps, luminance falls (light) or rises (dark) all the way, so that they read without hue. */
const ERROR_RAMP = {
  light: ["#f4f6e4", "#cfe5bd", "#86c7a8", "#4094a8", "#2f5f98", "#2b2b70"],
  dark: ["#262d36", "#2b4663", "#2f7088", "#52a48d", "#a5cf74", "#f6ed92"],
};
const LATENCY_RAMP = {
  light: ["#fbf3e9", "#f6d5b0", "#e3a26f", "#ba6c4c", "#7f4040", "#48232f"],
  dark: ["#2c2725", "#56392e", "#8b5237", "#c17640", "#e9aa5b", "#fce5a8"],
};
/** Beyond the worst end: neither ramp has this hue. The mark beside it has its own shape. */
const BROKEN = { light: "#d55e00", dark: "#f0702b" };
const UNKNOWN = { light: "#e4e7eb", dark: "#3b4047" };
/** Okabe and Ito, "Color Universal Design" (2008), black left out. */
export const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"] as const;
const FORMAT_COLOUR: Record<string, string> = {
  fp32: "#0072b2",
  fp16: "#e69f00",
  bf16: "#009e73",
  tf32: "#56b4e9",
  fp8e4m3: "#cc79a7",
  fp8e5m2: "#d55e00",
  int8: "#f0e442",
};
/** Tints, so that text on a box can be read; share of paper that is mixed in. */
const TINT = { light: 0.5, dark: 0.4 };
const DARK_PAPER = "#1b1f24";
/** SQNR at which an error counts as harmless: fp16 rounds to about 74 dB, so the ramp starts just above. */
const HARMLESS_DB = 80;
const STEPS = 256;
const MINUS = "−";
/** Between a figure and its unit: narrow, and a line never ends there. */
const SPACE = "\u202f";

/** Returns the colour of a number format at full strength, for badges. */
export function formatColour(format: string, dark: boolean): string {
  return FORMAT_COLOUR[format] ?? (dark ? "#808a96" : "#8b95a1");
}

/** Returns the colour of layers whose low version has inf or NaN. */
export function brokenColour(dark: boolean): string {
  return dark ? BROKEN.dark : BROKEN.light;
}

export function unknownColour(dark: boolean): string {
  return dark ? UNKNOWN.dark : UNKNOWN.light;
}

/** Returns a ramp of the quantity as `STEPS` colours, harmless first. */
export function ramp(quantity: Quantity, dark: boolean): readonly string[] {
  const stops = quantity === "latency" ? LATENCY_RAMP : ERROR_RAMP;
  const key = `${quantity === "latency"}|${dark}`;
  let made = ramps.get(key);
  if (!made) {
    made = interpolate(dark ? stops.dark : stops.light, STEPS);
    ramps.set(key, made);
  }
  return made;
}
const ramps = new Map<string, readonly string[]>();

/** Returns an error in words; "" where it is not known. */
export function errorText(db: number): string {
  if (Number.isNaN(db)) return "";
  if (db === Number.POSITIVE_INFINITY) return "exact";
  if (db === Number.NEGATIVE_INFINITY) return "inf/NaN";
  const figure = Math.abs(db) < 9.95 ? Math.abs(db).toFixed(1) : Math.abs(db).toFixed(0);
  return `${db < 0 && Number(figure) !== 0 ? MINUS : ""}${figure}${SPACE}dB`;
}

/** Returns a share (0..1) in percent, two digits. */
export function shareText(share: number): string {
  if (!Number.isFinite(share)) return "";
  const percent = 100 * share;
  if (percent > 0 && percent < 0.01) return `< 0.01${SPACE}%`;
  const digits = percent === 0 || percent >= 9.95 ? 0 : percent >= 0.995 ? 1 : 2;
  return `${percent.toFixed(digits)}${SPACE}%`;
}

/** Returns why a quantity cannot be shown now; "" when it can. */
export function missing(store: Store, quantity: Quantity): string {
  const figures = store.figures;
  if (quantity === "format" || quantity === "reason") return "";
  if (quantity === "latency") {
    if (figures.latencyProvenance) return "";
    return "No latency is known: choose a GPU in the bar to predict it.";
  }
  if (quantity === "sensitivity") {
    return figures.sensitivity_db.length > 0 ? "" : "No sensitivity yet: the search of plans measures it.";
  }
  return figures.errorsRevision < 0 ? "Not run yet: there are no errors to show." : "";
}

/** Returns the scale of a quantity as it stands now. Cheap: make a new one after each change of data, colour or theme. */
export function scaleFor(store: Store, quantity: Quantity, dark: boolean): Scale {
  if (quantity === "format") return formatScale(store, dark);
  if (quantity === "reason") return reasonScale(store, dark);
  if (quantity === "latency") return latencyScale(store, dark);
  return errorScale(store, quantity, dark);
}

function errorColumn(figures: Figures, quantity: Quantity): Float32Array {
  if (quantity === "local") return figures.local_sqnr_db;
  return quantity === "sensitivity" ? figures.sensitivity_db : figures.acc_sqnr_db;
}

function errorScale(store: Store, quantity: Quantity, dark: boolean): Scale {
  const figures = store.figures;
  const column = errorColumn(figures, quantity);
  const colours = ramp(quantity, dark);
  const position = (db: number): number =>
    Number.isNaN(db) || db === Number.NEGATIVE_INFINITY ? Number.NaN : clamp((HARMLESS_DB - db) / HARMLESS_DB);
  const colour = (db: number): string => {
    if (Number.isNaN(db)) return unknownColour(dark);
    return db === Number.NEGATIVE_INFINITY ? brokenColour(dark) : at(colours, position(db));
  };
  const value = (layer: number): number => column[layer] ?? Number.NaN;
  const count = (holds: (db: number) => boolean): number => column.reduce((sum, db) => sum + (holds(db) ? 1 : 0), 0);
  return {
    quantity,
    label: QUANTITY_LABEL[quantity],
    kind: "sequential",
    missing: missing(store, quantity),
    provenance: figures.errorProvenance,
    value,
    fill: (layer) => colour(value(layer)),
    colour,
    text: errorText,
    position,
    worse: (a, b) => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.min(a, b)),
    ticks: [80, 60, 40, 20, 0].map((db) => ({
      at: position(db),
      text: db === 80 ? "≥ 80" : db === 0 ? "≤ 0" : `${db}`,
    })),
    entries: [
      { colour: brokenColour(dark), text: "inf/NaN", count: count((db) => db === Number.NEGATIVE_INFINITY) },
      { colour: unknownColour(dark), text: "not known", count: store.model.layers - count((db) => !Number.isNaN(db)) },
    ].filter((entry) => entry.count > 0),
  };
}

function latencyScale(store: Store, dark: boolean): Scale {
  const figures = store.figures;
  const column = figures.latency_us;
  let total = 0;
  let largest = 0;
  const known = (time: number): boolean => time >= 0 && time < Number.POSITIVE_INFINITY;
  for (const time of column) {
    if (!known(time)) continue;
    total += time;
    largest = Math.max(largest, time);
  }
  const top = total > 0 ? largest / total : 1;
  const colours = ramp("latency", dark);
  // A root, because shares are skewed: a few layers take most of the time.
  const position = (share: number): number => (Number.isNaN(share) ? Number.NaN : Math.sqrt(clamp(share / top)));
  const colour = (share: number): string => (share >= 0 ? at(colours, position(share)) : unknownColour(dark));
  const value = (layer: number): number => {
    const time = column[layer] ?? Number.NaN;
    return total > 0 && known(time) ? time / total : Number.NaN;
  };
  return {
    quantity: "latency",
    label: QUANTITY_LABEL.latency,
    kind: "sequential",
    missing: missing(store, "latency"),
    provenance: figures.latencyProvenance,
    value,
    fill: (layer) => colour(value(layer)),
    colour,
    text: shareText,
    position,
    worse: (a, b) => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.max(a, b)),
    ticks: [0, 0.25, 1].map((part) => ({ at: Math.sqrt(part), text: shareText(part * top) })),
    entries: [
      {
        colour: unknownColour(dark),
        text: "not known",
        count: column.reduce((sum, time) => sum + (known(time) ? 0 : 1), 0),
      },
    ].filter((entry) => entry.count > 0),
  };
}

interface Category {
  name: string;
  colour: string;
  count: number;
}

function categorical(
  store: Store,
  quantity: Quantity,
  dark: boolean,
  categories: Category[],
  index: (layer: number) => number,
): Scale {
  const colour = (value: number): string => categories[value]?.colour ?? unknownColour(dark);
  return {
    quantity,
    label: QUANTITY_LABEL[quantity],
    kind: "categorical",
    missing: "",
    provenance: store.figures.revision === store.state.revision ? "decided by conversion" : "",
    value: index,
    fill: (layer) => colour(index(layer)),
    colour,
    text: (value) => categories[value]?.name ?? "",
    position: () => Number.NaN,
    // Of a mixture nothing is worst: it has no category.
    worse: (a, b) => (a === b ? a : Number.NaN),
    ticks: [],
    entries: categories
      .filter((one) => one.count > 0)
      .map(({ colour: c, name, count }) => ({ colour: c, text: name, count })),
  };
}

function formatScale(store: Store, dark: boolean): Scale {
  const names = [...new Set(["fp32", store.state.format, ...store.figures.formats])];
  const categories = names.map((name) => ({
    name: name === "none" ? "no floats" : name,
    colour: name === "none" ? unknownColour(dark) : tint(formatColour(name, dark), dark),
    count: 0,
  }));
  const index = (layer: number): number => names.indexOf(store.formatOf(layer));
  for (let layer = 0; layer < store.model.layers; layer++) {
    const category = categories[index(layer)];
    if (category) category.count += 1;
  }
  return categorical(store, "format", dark, categories, index);
}

/** Returns a reason without the names in it, so that layers decided alike are counted together. */
export function plainReason(reason: string, model: Model): string {
  const plain = reason.replace(/'[^']*'|"[^"]*"|`[^`]*`/g, "…").replace(/\bthe input \S+$/, "…");
  // A name at the end may hold spaces: the longest tail that is a layer's is taken out.
  for (let at = plain.indexOf(" "); at >= 0; at = plain.indexOf(" ", at + 1)) {
    if (model.indexOf(plain.slice(at + 1)) >= 0) return `${plain.slice(0, at)} …`;
  }
  return plain;
}

function reasonScale(store: Store, dark: boolean): Scale {
  const { reasons, reason } = store.figures;
  const plain = reasons.map((one) => plainReason(one, store.model));
  const counts = new Map<string, number>();
  for (const which of reason) {
    const text = plain[which] ?? "";
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  const ranked = [...counts].sort((a, b) => b[1] - a[1]);
  const categories: Category[] = ranked.slice(0, OKABE_ITO.length).map(([name, count], place) => ({
    name: name || "no reason given",
    colour: tint(OKABE_ITO[place] as string, dark),
    count,
  }));
  const rest = ranked.slice(OKABE_ITO.length).reduce((sum, [, count]) => sum + count, 0);
  if (rest > 0) categories.push({ name: "other reasons", colour: unknownColour(dark), count: rest });
  const places = new Map(ranked.map(([name], place) => [name, Math.min(place, OKABE_ITO.length)]));
  const index = (layer: number): number => places.get(plain[reason[layer] ?? -1] ?? "") ?? Number.NaN;
  return categorical(store, "reason", dark, categories, index);
}

function tint(colour: string, dark: boolean): string {
  return mix(colour, dark ? DARK_PAPER : LIGHT.paper, dark ? TINT.dark : TINT.light);
}

function clamp(value: number): number {
  return Math.min(1, Math.max(0, value));
}

function at(colours: readonly string[], position: number): string {
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
