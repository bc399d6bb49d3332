/** Columns of the layer table: what each holds, how it is sorted, shown and written to CSV. */
import type { Figures } from "../protocol";
import type { Store } from "../store";
import { totalLatency } from "./layer_figures";
import { ABSENT, count, deviation, duration, errorFigure, gain, quantity, relative, share, sqnr } from "./numbers";

export interface Column {
  key: string;
  label: string;
  title: string;
  width: number; // CSS pixels
  kind: "index" | "op" | "id" | "format" | "error" | "number" | "words";
  shown: boolean; // unless the user chose otherwise
  /** Which way a first click sorts, so that what is worst comes first. */
  first: "ascending" | "descending";
  /** Whether there is anything to show. */
  there(store: Store): boolean;
  value(store: Store, layer: number): number | string;
  text(value: number | string): string;
}

type Numbers = (figures: Figures) => ArrayLike<number>;
const always = (): boolean => true;

function numeric(
  key: string,
  label: string,
  title: string,
  column: Numbers,
  text: (value: number) => string,
  more: Partial<Column> = {},
): Column {
  return {
    key,
    label,
    title,
    width: 84,
    kind: "number",
    shown: false,
    first: "descending",
    there: (store) => column(store.figures).length > 0,
    value: (store, layer) => column(store.figures)[layer] ?? Number.NaN,
    text: (value) => text(value as number),
    ...more,
  };
}

function words(key: string, label: string, width: number, value: Column["value"], more: Partial<Column> = {}): Column {
  return {
    key,
    label,
    title: label,
    width,
    kind: "words",
    shown: true,
    first: "ascending",
    there: always,
    value,
    text: String,
    ...more,
  };
}

const error: Partial<Column> = { kind: "error", shown: true, first: "ascending", width: 98 };
const latency = (store: Store): boolean => store.figures.latencyProvenance !== "";
const kernels = (store: Store): boolean => store.figures.kernels.length > 0;
const sharers = (store: Store, layer: number): string =>
  (store.kernel(layer)?.layers ?? [])
    .filter((other) => other !== layer)
    .map((other) => store.model.name(other))
    .join(", ");
const lost = (value: number): string => (value === 0 ? "0" : count(value));
// "not measured" in every cell of a column would shout: a table says it with a dash.
const cell = (text: (value: number) => string) => (value: number) =>
  Number.isNaN(value) ? ABSENT : text === sqnr && value === Number.NEGATIVE_INFINITY ? "inf/NaN" : text(value);

export const COLUMNS: readonly Column[] = [
  words("index", "#", 46, (_, layer) => layer + 1, {
    kind: "index",
    title: "place in the order of execution",
    text: (value) => count(value as number),
  }),
  words("op", "op", 96, (store, layer) => store.model.op(layer), { kind: "op", title: "op type" }),
  words("id", "id", 172, (store, layer) => store.model.name(layer), { kind: "id" }),
  words("format", "format", 94, (store, layer) => store.formatOf(layer), { kind: "format" }),
  words("asked", "asked", 72, (store, layer) => store.figures.formats[store.figures.asked[layer] ?? 0] ?? "none", {
    shown: false,
    title: "format that the plan asks for",
  }),
  words("blacklisted", "blacklisted", 92, (store, layer) => (store.isBlacklisted(layer) ? "yes" : ""), {
    shown: false,
  }),
  numeric(
    "local_sqnr_db",
    "local",
    "local error: SQNR when only this layer runs low",
    (f) => f.local_sqnr_db,
    cell(sqnr),
    error,
  ),
  numeric(
    "acc_sqnr_db",
    "accumulated",
    "accumulated error: SQNR under the whole plan",
    (f) => f.acc_sqnr_db,
    cell(sqnr),
    error,
  ),
  numeric(
    "sensitivity_db",
    "sensitivity",
    "SQNR of the model's outputs when only this layer runs low",
    (f) => f.sensitivity_db,
    cell(sqnr),
    error,
  ),
  numeric("saves_us", "saves", "time saved by running it low, the other layers as planned", (f) => f.saves_us, gain, {
    shown: true,
  }),
  numeric(
    "costs",
    "costs",
    "error that it adds to the worst output by running low: relative L2",
    (f) => f.costs,
    (cost) => (cost === Number.POSITIVE_INFINITY ? "inf/NaN" : errorFigure(cost)),
    { shown: true },
  ),
  numeric("max_abs", "max |x|", "largest exact value", (f) => f.max_abs, quantity, { shown: true }),
  numeric("rms", "rms", "root mean square of the exact values", (f) => f.rms, quantity),
  numeric("overflow", "overflow", "values beyond the range of the format", (f) => f.overflow, lost, { shown: true }),
  numeric("nan", "NaN", "values that become NaN", (f) => f.nan, lost),
  numeric("subnormal", "subnormal", "values that keep fewer bits", (f) => f.subnormal, lost, { shown: true }),
  numeric("flushed", "flushed", "values that become zero", (f) => f.flushed, lost),
  numeric("elements", "elements", "values that were measured", (f) => f.elements, count),
  numeric("local_max_abs", "local max |e|", "largest local error", (f) => f.local_max_abs, cell(deviation), {
    width: 104,
  }),
  numeric("acc_max_abs", "acc. max |e|", "largest accumulated error", (f) => f.acc_max_abs, cell(deviation), {
    width: 104,
  }),
  numeric(
    "local_rel_l2",
    "local rel. L2",
    "local error relative to the values",
    (f) => f.local_rel_l2,
    cell(relative),
    { width: 104 },
  ),
  numeric(
    "acc_rel_l2",
    "acc. rel. L2",
    "accumulated error relative to the values",
    (f) => f.acc_rel_l2,
    cell(relative),
    { width: 104 },
  ),
  numeric("fp32_us", "fp32", "latency in fp32", (f) => f.fp32_us, duration, { there: latency }),
  numeric(
    "plan_us",
    "latency",
    "latency under the plan, or of the fp32 model where nothing else is known",
    (f) => f.latency_us,
    duration,
    { shown: true, there: latency },
  ),
  {
    ...numeric("latency_share", "share", "share of the latency of all layers", (f) => f.latency_us, share, {
      shown: true,
      there: latency,
      width: 72,
    }),
    value: (store, layer) => (store.figures.latency_us[layer] ?? Number.NaN) / totalLatency(store.figures),
  },
  words("ran", "ran", 72, (store, layer) => store.kernel(layer)?.format ?? "", {
    shown: false,
    title: "format that it really ran in, as measured",
    there: kernels,
  }),
  words("kernel", "kernel", 180, (store, layer) => store.kernel(layer)?.name ?? "", {
    title: "kernel that computed it, as measured",
    there: kernels,
  }),
  words("shares", "fused with", 180, sharers, {
    shown: false,
    title: "layers that the same kernel computes",
    there: kernels,
  }),
  words("reason", "reason", 320, (store, layer) => store.reasonOf(layer)),
  words("scope", "scope", 220, (store, layer) => store.model.structure.groups.path[store.model.groupOf(layer)] ?? "", {
    shown: false,
  }),
  words(
    "source",
    "source",
    160,
    (store, layer) => store.model.structure.sources[store.model.structure.layers.source[layer] ?? 0] ?? "",
    { shown: false, title: "line of code that made the layer" },
  ),
];
