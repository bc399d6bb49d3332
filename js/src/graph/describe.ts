/** Layers, scopes and wires in words: for the hover card, the list that screen readers read, and announcements. */
import { errorText, missing, shareText } from "../colours";
import { consequences } from "../consequences";
import { saturates } from "../inspector/facts";
import type { Figures } from "../protocol";
import type { Store } from "../store";
import type { Facts } from "./facts";
import type { Box, Wire } from "./layout";
import { oneLine } from "./text";

const NAME = 120; // letters of a name that are read aloud or stand in a card

export interface Row {
  label: string;
  text: string;
  tone?: "stop" | "muted";
}

export function brief(text: string, longest = NAME): string {
  return text.length > longest ? `${oneLine(text, longest)}…` : oneLine(text);
}

/** Returns an error with its words: "41 dB", "exact", "inf or NaN", "not measured". */
export function errorWords(db: number | undefined): string {
  if (db === undefined || Number.isNaN(db)) return "not known";
  return db === Number.NEGATIVE_INFINITY ? "inf or NaN" : errorText(db);
}

/** Returns a layer in one sentence: "Conv conv1, fp16, accumulated error 41 dB, blacklisted". */
export function layerSentence(store: Store, layer: number): string {
  const { figures, model } = store;
  const format = store.formatOf(layer);
  const parts = [`${model.op(layer)} ${brief(model.name(layer))}`, format === "none" ? "no floats" : format];
  if (!missing(store, "accumulated")) parts.push(`accumulated error ${errorWords(figures.acc_sqnr_db[layer])}`);
  if (store.isBlacklisted(layer)) parts.push("blacklisted");
  if (!store.isSwitchable(layer)) parts.push("cannot be switched");
  return parts.join(", ");
}

export function boxSentence(store: Store, facts: Facts, box: Box): string {
  const { model } = store;
  if (box.kind === "layer") return layerSentence(store, box.node);
  if (box.kind !== "group") return `model ${box.kind} ${brief(model.name(box.node))}`;
  const group = facts.group(box.group);
  const parts = [
    `scope ${brief(model.structure.groups.label[box.group] ?? "")}`,
    `${group.layers} layers`,
    `${group.low} of ${group.switchable} in ${store.mixed ? "a low format" : store.state.format}`,
  ];
  if (group.brokenNow > 0) parts.push(`${group.brokenNow} with inf or NaN`);
  parts.push(box.open ? "unfolded" : "folded");
  return parts.join(", ");
}

function shapes(store: Store, edges: readonly number[]): string {
  const { structure } = store.model;
  const seen = new Set<number>();
  const shown: string[] = [];
  for (const edge of edges) {
    const tensor = structure.edges.tensor[edge] ?? -1;
    if (seen.has(tensor)) continue;
    seen.add(tensor);
    if (shown.length < 3) shown.push(`${structure.tensors.shape[tensor] ?? "?"} ${dtypeOf(store, tensor)}`);
  }
  return seen.size > 3 ? `${shown.join(", ")} and ${seen.size - 3} more` : shown.join(", ");
}

function dtypeOf(store: Store, tensor: number): string {
  const { structure } = store.model;
  return structure.dtypes[structure.tensors.dtype[tensor] ?? -1] ?? "";
}

function number(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : `${Number(value.toPrecision(3))}`;
}

function rangeText(figures: Figures, layer: number): string {
  const largest = figures.max_abs[layer];
  const rms = figures.rms[layer];
  if (largest === undefined || Number.isNaN(largest)) return "";
  const parts = [`|x| ≤ ${number(largest)}`];
  if (rms !== undefined && !Number.isNaN(rms)) parts.push(`rms ${number(rms)}`);
  return parts.join(", ");
}

/** Returns what conversion to the low format would lose of the exact values, in words; "" if nothing. */
function lossText(figures: Figures, layer: number): string {
  const elements = figures.elements[layer] ?? 0;
  if (!(elements > 0)) return "";
  const words = [
    ["overflow", figures.overflow],
    ["NaN", figures.nan],
    ["flushed to zero", figures.flushed],
    ["subnormal", figures.subnormal],
  ] as const;
  return words
    .map(([word, column]) => [word, (column[layer] ?? 0) / elements] as const)
    .filter(([, share]) => share > 0)
    .map(([word, share]) => `${shareText(share)} ${word}`)
    .join(", ");
}

function latencyText(store: Store, layer: number): string {
  const { plan_us, latency_us, fp32_us } = store.figures;
  const now = latency_us[layer];
  if (now === undefined || Number.isNaN(now)) return "";
  const total = latency_us.reduce((sum, time) => sum + (Number.isFinite(time) ? time : 0), 0);
  const share = total > 0 ? `, ${shareText(now / total)} of all layers` : "";
  const before = fp32_us[layer];
  const exact = before !== undefined && !Number.isNaN(before) && before !== now ? ` (fp32: ${number(before)} µs)` : "";
  const low = plan_us[layer];
  return `${number(now)} µs${low === undefined || Number.isNaN(low) ? " in fp32" : exact}${share}`;
}

/** Returns what the card says about a layer; rows without anything to say are left out. */
export function layerRows(store: Store, layer: number): Row[] {
  const { figures, model } = store;
  const stale = store.stale ? " (before the last change)" : "";
  const rows: Row[] = [
    { label: "takes", text: shapes(store, model.entering[layer] ?? []) },
    { label: "gives", text: shapes(store, model.leaving[layer] ?? []) },
    { label: "reason", text: brief(store.reasonOf(layer), 240) },
  ];
  if (!missing(store, "local")) {
    const broken = (db: number | undefined): "stop" | undefined =>
      db === Number.NEGATIVE_INFINITY ? "stop" : undefined;
    const error = (label: string, db: number | undefined): Row => {
      const tone = broken(db);
      return { label, text: `${errorWords(db)}${stale}`, ...(tone && { tone }) };
    };
    rows.push(error("accumulated error", figures.acc_sqnr_db[layer]));
    rows.push(error("local error", figures.local_sqnr_db[layer]));
    if (figures.firstNonfinite === layer) {
      rows.push({ label: "", text: "The first layer that goes inf or NaN.", tone: "stop" });
    }
  }
  if (!missing(store, "sensitivity")) {
    rows.push({ label: "sensitivity", text: errorWords(figures.sensitivity_db[layer]) });
  }
  rows.push({ label: "exact values", text: rangeText(figures, layer) });
  const low = store.lowFormatOf(layer);
  const loss = lossText(figures, layer);
  const stops = saturates(low) ? /NaN/ : /overflow|NaN/;
  rows.push({ label: `in ${low}`, text: loss, ...(stops.test(loss) && { tone: "stop" as const }) });
  rows.push({ label: "latency", text: latencyText(store, layer) });
  rows.push(...kernelRows(store, layer));
  const would = consequences(store, layer);
  if (would) rows.push({ label: `if in ${would.to}`, text: [would.error, would.time].filter(Boolean).join(" ") });
  rows.push({ label: "source", text: brief(model.structure.sources[model.structure.layers.source[layer] ?? 0] ?? "") });
  return rows.filter((row) => row.text !== "");
}

/** Returns what the kernel that computed a layer tells: with what it was fused, and in what it really ran. */
function kernelRows(store: Store, layer: number): Row[] {
  const kernel = store.kernel(layer);
  if (!kernel) return [];
  const others = kernel.layers.length - 1;
  const rows: Row[] = [{ label: "kernel", text: others > 0 ? `${brief(kernel.name, 60)}, with ${others} more` : "" }];
  const ran = store.overruled(layer);
  if (ran) rows.push({ label: "ran in", text: `${ran}, decided was ${store.formatOf(layer)}`, tone: "stop" });
  return rows;
}

/** Returns how the figures of the card came to be. */
export function provenance(store: Store): string[] {
  const { figures } = store;
  const lines = [
    !missing(store, "local") && figures.errorProvenance && `errors ${figures.errorProvenance}`,
    figures.rangeProvenance && `values ${figures.rangeProvenance}`,
    figures.latencyProvenance && `latency ${figures.latencyProvenance}`,
    figures.costs.length > 0 && `switching: error ${store.state.search.error_provenance || "predicted"}`,
    store.state.random && "inputs are random: ranges are not to be trusted",
  ];
  return lines.filter((line): line is string => Boolean(line)).map((line) => brief(line, 200));
}

export function groupRows(store: Store, facts: Facts, group: number): Row[] {
  const held = facts.group(group);
  const { scale } = facts;
  const stale = facts.stale ? " (before the last change)" : "";
  const share = held.switchable > 0 ? ` (${shareText(held.low / held.switchable)})` : "";
  const rows: Row[] = [
    { label: "layers", text: `${held.layers}` },
    {
      label: store.mixed ? "low" : `in ${store.state.format}`,
      text: `${held.low} of ${held.switchable} that can be switched${share}`,
    },
  ];
  if (held.int8 > 0) {
    const { format } = store.state;
    rows.push({ label: "", text: `${held.low - held.int8} in ${format}, ${held.int8} in int8` });
  }
  if (held.blacklisted > 0) rows.push({ label: "blacklisted", text: `${held.blacklisted}` });
  if (held.brokenNow > 0) rows.push({ label: "inf or NaN", text: `in ${held.brokenNow} layers${stale}`, tone: "stop" });
  if (held.brokenAlone > 0) rows.push({ label: "would overflow", text: `${held.brokenAlone} layers, each alone` });
  if (scale.kind === "sequential" && !scale.missing && held.known > 0) {
    const extreme = scale.quantity === "saves" ? "most" : "worst";
    rows.push({ label: scale.label, text: `${extreme} ${scale.text(held.worst)}${stale}` });
    if (scale.quantity === "saves") return rows; // savings of layers that share casts do not add up
    if (scale.quantity === "latency") rows.push({ label: "", text: `together ${scale.text(held.total)}` });
    else if (!Number.isNaN(held.mean))
      rows.push({ label: "", text: `mean of the finite ones ${scale.text(held.mean)}` });
  }
  return rows;
}

export function wireRows(store: Store, wire: Wire): { title: string; rows: Row[] } {
  const { structure } = store.model;
  const tensors = [...new Set(wire.edges.map((edge) => structure.edges.tensor[edge] ?? -1))];
  const first = tensors[0] ?? -1;
  const rows: Row[] = [];
  for (const tensor of tensors.slice(0, 4)) {
    const edges = wire.edges.filter((edge) => structure.edges.tensor[edge] === tensor);
    const cast = edges.map((edge) => store.figures.cast[edge] ?? 0).find((kind) => kind > 0) ?? 0;
    const to = cast === 1 ? store.state.format : cast === 3 ? "int8" : "fp32";
    const shape = `${structure.tensors.shape[tensor] ?? "?"} ${dtypeOf(store, tensor)}`;
    rows.push({
      label: tensors.length > 1 ? brief(structure.tensors.name[tensor] ?? "", 40) : "shape",
      text: cast > 0 ? `${shape}, cast to ${to}` : shape,
    });
  }
  if (tensors.length > 4) rows.push({ label: "", text: `and ${tensors.length - 4} more tensors` });
  const title = tensors.length > 1 ? `${tensors.length} tensors` : brief(structure.tensors.name[first] ?? "");
  return { title, rows };
}
