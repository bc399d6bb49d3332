/** What a layer's colour means: from a quantity to a scale, shared by the graph, its legend and the table. */
import { errorFigure, gain, superscript } from "./inspector/numbers";
import type { Model } from "./model";
import type { Figures } from "./protocol";
import { at, clamp, ramp } from "./ramps";
import type { Quantity, Store } from "./store";
import { LIGHT, mix } from "./theme";

export const QUANTITY_LABEL: Record<Quantity, string> = {
  local: "local error",
  accumulated: "accumulated error",
  sensitivity: "sensitivity",
  saves: "time saved",
  costs: "error cost",
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
  /** What the ramp shows, in a few words; "" without a ramp. */
  readonly caption: string;
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
/** SQNR at which an error counts as harmless, and at which the ramp ends: fp16 rounds to about 74 dB. */
const ERROR_ENDS = { harmless: 80, worst: 0 };
/** The same for one layer of many, whose errors add up: a hundred layers with 90 dB each leave 70 dB. */
const SENSITIVITY_ENDS = { harmless: 110, worst: 30 };
const COST_DECADES = 4; // below the largest: what is less costs next to nothing beside it
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
    const refused = store.state.measured?.refused;
    if (refused) return refused;
    return "No latency is known: choose in the bar where to measure it, or for which GPU to predict it.";
  }
  if (quantity === "sensitivity" || quantity === "saves" || quantity === "costs") {
    const column = { sensitivity: figures.sensitivity_db, saves: figures.saves_us, costs: figures.costs }[quantity];
    if (column.length > 0) return "";
    if (quantity === "saves" && store.state.search.points.length > 0)
      return "No time saved is known: choose a GPU in the bar, then search for the best plans again.";
    const what = { sensitivity: "sensitivity", saves: "time saved", costs: "error cost" }[quantity];
    return `No ${what} yet: search for the best plans (tab Trade-off).`;
  }
  return figures.errorsRevision < 0 ? "Not run yet: there are no errors to show." : "";
}

/** Returns the scale of a quantity as it stands now. Cheap: make a new one after each change of data, colour or theme. */
export function scaleFor(store: Store, quantity: Quantity, dark: boolean): Scale {
  if (quantity === "format") return formatScale(store, dark);
  if (quantity === "reason") return reasonScale(store, dark);
  if (quantity === "latency") return latencyScale(store, dark);
  if (quantity === "saves") return savingScale(store, dark);
  if (quantity === "costs") return costScale(store, dark);
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
  const alone = quantity === "sensitivity";
  const { harmless, worst } = alone ? SENSITIVITY_ENDS : ERROR_ENDS;
  const position = (db: number): number =>
    Number.isNaN(db) || db === Number.NEGATIVE_INFINITY ? Number.NaN : clamp((harmless - db) / (harmless - worst));
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
    provenance: alone ? store.state.search.error_provenance : figures.errorProvenance,
    caption: alone ? "SQNR of the outputs in dB, if it alone ran low" : "SQNR in dB, higher is better",
    value,
    fill: (layer) => colour(value(layer)),
    colour,
    text: errorText,
    position,
    worse: (a, b) => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.min(a, b)),
    ticks: [0, 20, 40, 60, 80].map((step) => {
      const db = harmless - step;
      return { at: position(db), text: step === 0 ? `≥ ${db}` : db === worst ? `≤ ${db}` : `${db}` };
    }),
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
    caption: "share of the time of all layers",
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

/** Time saved by running low: a root both ways, because a few layers save most. */
function savingScale(store: Store, dark: boolean): Scale {
  const column = store.figures.saves_us;
  const top = column.reduce((most, us) => (Number.isFinite(us) ? Math.max(most, Math.abs(us)) : most), 0) || 1;
  const colours = ramp("saves", dark);
  const position = (us: number): number =>
    Number.isFinite(us) ? 0.5 + 0.5 * Math.sign(us) * Math.sqrt(clamp(Math.abs(us) / top)) : Number.NaN;
  const colour = (us: number): string => (Number.isFinite(us) ? at(colours, position(us)) : unknownColour(dark));
  const value = (layer: number): number => column[layer] ?? Number.NaN;
  return {
    quantity: "saves",
    label: QUANTITY_LABEL.saves,
    kind: "sequential",
    missing: missing(store, "saves"),
    provenance: store.state.search.latency_provenance,
    caption: "by running low, casts included; left of zero it takes longer",
    value,
    fill: (layer) => colour(value(layer)),
    colour,
    text: (us) => (Number.isNaN(us) ? "" : gain(us)),
    position,
    worse: (a, b) => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.max(a, b)),
    ticks: [-top, 0, top].map((us) => ({ at: position(us), text: gain(us) })),
    entries: unknownEntry(store, column, dark),
  };
}

/** Error added by running low, on a log axis that ends at the costliest layer. */
function costScale(store: Store, dark: boolean): Scale {
  const column = store.figures.costs;
  const finite = (cost: number): boolean => cost > 0 && cost < Number.POSITIVE_INFINITY;
  const largest = column.reduce((most, cost) => (finite(cost) ? Math.max(most, cost) : most), 0);
  const end = Math.ceil(Math.log10(largest || 1));
  const colours = ramp("costs", dark);
  const position = (cost: number): number => {
    if (Number.isNaN(cost) || cost === Number.POSITIVE_INFINITY) return Number.NaN;
    return cost > 0 ? clamp(1 + (Math.log10(cost) - end) / COST_DECADES) : 0;
  };
  const colour = (cost: number): string => {
    if (cost === Number.POSITIVE_INFINITY) return brokenColour(dark);
    return Number.isNaN(cost) ? unknownColour(dark) : at(colours, position(cost));
  };
  const value = (layer: number): number => column[layer] ?? Number.NaN;
  const broken = column.reduce((sum, cost) => sum + (cost === Number.POSITIVE_INFINITY ? 1 : 0), 0);
  return {
    quantity: "costs",
    label: QUANTITY_LABEL.costs,
    kind: "sequential",
    missing: missing(store, "costs"),
    provenance: store.state.search.error_provenance,
    caption: "relative error that it adds by running low",
    value,
    fill: (layer) => colour(value(layer)),
    colour,
    text: (cost) => (Number.isNaN(cost) ? "" : cost === Number.POSITIVE_INFINITY ? "inf/NaN" : errorFigure(cost)),
    position,
    worse: (a, b) => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.max(a, b)),
    ticks: [COST_DECADES, COST_DECADES / 2, 0].map((down) => ({
      at: 1 - down / COST_DECADES,
      text: `${down === COST_DECADES ? "≤ " : ""}10${superscript(end - down)}`,
    })),
    entries: [
      ...(broken > 0 ? [{ colour: brokenColour(dark), text: "inf/NaN", count: broken }] : []),
      ...unknownEntry(store, column, dark),
    ],
  };
}

function unknownEntry(store: Store, column: Float32Array, dark: boolean): LegendEntry[] {
  const known = column.reduce((sum, value) => sum + (Number.isNaN(value) ? 0 : 1), 0);
  const count = store.model.layers - known;
  return count > 0 ? [{ colour: unknownColour(dark), text: "not known", count }] : [];
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
    provenance: store.preview
      ? "a preview: predicted, not set"
      : store.figures.revision === store.state.revision
        ? "decided by conversion"
        : "",
    caption: "",
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
