/** Errors, range and latency of one layer, in words where a number would mislead. */
import { h } from "../dom";
import type { Figures } from "../protocol";
import type { Store } from "../store";
import { rangeOf, saturates } from "./facts";
import { kernelPart } from "./measured";
import { count, deviation, duration, quantity, relative, share, sqnr } from "./numbers";
import { icon, pairs, provenance, section } from "./ui";

const at = (column: ArrayLike<number>, layer: number): number => column[layer] ?? Number.NaN;

export function errorSection(store: Store, layer: number, folded: Map<string, boolean>): HTMLElement {
  const f = store.figures;
  const low = store.lowFormatOf(layer);
  const rows: [string, string, string, string][] = [
    ["SQNR", "signal to quantization noise", sqnr(at(f.local_sqnr_db, layer)), sqnr(at(f.acc_sqnr_db, layer))],
    [
      "max |e|",
      "largest error of an element",
      deviation(at(f.local_max_abs, layer)),
      deviation(at(f.acc_max_abs, layer)),
    ],
    [
      "rel. L2",
      "norm of the error over norm of the exact values",
      relative(at(f.local_rel_l2, layer)),
      relative(at(f.acc_rel_l2, layer)),
    ],
  ];
  const table = h(
    "table",
    { class: store.stale ? "pe-i-errors pe-i-stale" : "pe-i-errors", "aria-busy": String(store.stale) },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td"),
        h("th", { scope: "col", title: `Only this layer runs in ${low}, on exact inputs` }, "local"),
        h("th", { scope: "col", title: "The whole plan runs low" }, "accumulated"),
      ),
    ),
    h(
      "tbody",
      {},
      ...rows.map(([label, title, local, accumulated]) =>
        h("tr", {}, h("th", { scope: "row", title }, label), cell(local), cell(accumulated)),
      ),
    ),
  );
  const sensitivity = at(f.sensitivity_db, layer);
  return section(
    "Error",
    folded,
    table,
    f.firstNonfinite === layer
      ? h("p", { class: "pe-i-first" }, icon("stop"), "The first layer that is not finite under the plan.")
      : "",
    ...(Number.isNaN(sensitivity) ? [] : [pairs(["sensitivity", sqnr(sensitivity)])]),
    losses(f, layer, low),
    provenance(f.errorProvenance) ?? "",
  );
}

function cell(text: string): HTMLElement {
  if (text === "not finite") return h("td", { class: "pe-i-stop" }, icon("stop"), text);
  return h("td", { class: text === "not measured" ? "pe-i-none" : "" }, text);
}

/** Returns what the format loses of the layer's exact values. */
function losses(f: Figures, layer: number, low: string): HTMLElement | "" {
  const elements = at(f.elements, layer);
  if (!(elements > 0)) return "";
  const rows: [string, number, string][] = [
    ["overflow", at(f.overflow, layer), saturates(low) ? `are cut at the end of ${low}` : `become infinite in ${low}`],
    ["NaN", at(f.nan, layer), `become NaN in ${low}`],
    ["subnormal", at(f.subnormal, layer), "keep fewer bits"],
    ["flushed", at(f.flushed, layer), "become zero"],
  ];
  const found = rows.filter(([, number]) => number > 0);
  if (found.length === 0) {
    const measured = rows.some(([, number]) => !Number.isNaN(number));
    return measured
      ? h(
          "p",
          { class: "pe-i-lossless" },
          icon("good"),
          `All ${count(elements)} exact values lie in the range of ${low}.`,
        )
      : "";
  }
  return h(
    "ul",
    { class: "pe-i-losses", "aria-label": `Of ${count(elements)} exact values` },
    ...found.map(([label, number, meaning]) => {
      const bar = h("span", { class: `pe-i-lost pe-i-lost-${label.toLowerCase()}` });
      bar.style.width = `${Math.max(1, (100 * number) / elements)}%`;
      return h(
        "li",
        {},
        h("span", { class: "pe-i-lost-share" }, share(number / elements)),
        h("span", { class: "pe-i-lost-track", "aria-hidden": "true" }, bar),
        h("span", { title: `${count(number)} of ${count(elements)} exact values` }, h("b", {}, label), ` ${meaning}`),
      );
    }),
  );
}

export function rangeSection(store: Store, layer: number, folded: Map<string, boolean>): HTMLElement | null {
  const f = store.figures;
  const [largest, rms] = [at(f.max_abs, layer), at(f.rms, layer)];
  const low = store.lowFormatOf(layer);
  if (Number.isNaN(largest) && Number.isNaN(rms)) return null;
  return section(
    "Range of the exact values",
    folded,
    pairs(["max |x|", h("span", {}, h("b", {}, quantity(largest, 5)), place(largest, low))], ["rms", quantity(rms)]),
    gauge(low, largest, rms) ?? "",
    provenance(f.rangeProvenance) ?? "",
  );
}

/** Returns where the largest value lies in a format, in words. */
export function place(largest: number, format: string): string {
  const range = rangeOf(format);
  if (!range || !Number.isFinite(largest)) return "";
  if (largest > range.max)
    return `, ${times(largest / range.max)} the largest ${format} value, ${quantity(range.max, 5)}`;
  if (largest === 0) return ", all zero";
  if (largest < range.least / 2) return `, all flushed to zero in ${format}`;
  if (largest < range.normal) return `, all subnormal in ${format}`;
  return `, ${times(range.max / largest)} below the end of ${format}, ${quantity(range.max, 5)}`;
}

function times(ratio: number): string {
  return ratio < 1.005 ? "just" : `${quantity(ratio, ratio < 10 ? 2 : 3)}×`;
}

const MARGIN = 5; // octaves shown beyond the format's range
const NEAR = 12; // percent: two marks this close would write their names over each other
const EDGE = 97; // percent: a mark's name stays inside

/** Returns the format's range as a strip on a log2 axis, with marks where rms and the largest value lie. */
function gauge(format: string, largest: number, rms: number): HTMLElement | null {
  const range = rangeOf(format);
  if (!range) return null;
  const from = Math.log2(range.least) - MARGIN;
  const to = Math.log2(range.max) + MARGIN;
  const percent = (value: number): number =>
    Math.min(100, Math.max(0, (100 * (Math.log2(value) - from)) / (to - from)));
  const band = (name: string, low: number, high: number): HTMLElement => {
    const part = h("span", { class: `pe-i-band pe-i-band-${name}` });
    part.style.left = `${percent(low)}%`;
    part.style.width = `${percent(high) - percent(low)}%`;
    return part;
  };
  const name = (text: string, low: number, high: number): HTMLElement => {
    const label = h("span", {}, text);
    const outer = low < range.least || high > range.max; // these two stand at the ends of the strip
    if (!outer) label.style.left = `${(percent(low) + percent(high)) / 2}%`;
    return label;
  };
  const mark = (name: string, value: number): HTMLElement | null => {
    if (!(value > 0)) return null;
    const beside = name === "rms" && percent(largest) - percent(value) < NEAR ? " pe-i-beside" : "";
    const needle = h("span", { class: `pe-i-needle pe-i-needle-${name}${beside}` }, h("span", {}, name));
    needle.style.left = `${Math.min(EDGE, percent(value))}%`;
    return needle;
  };
  return h(
    "div",
    { class: "pe-i-gauge", "aria-hidden": "true" },
    h(
      "div",
      { class: "pe-i-strip" },
      band("flushed", 2 ** from, range.least),
      band("subnormal", range.least, range.normal),
      band("normal", range.normal, range.max),
      band("overflow", range.max, 2 ** to),
      mark("rms", rms),
      mark("max", largest),
    ),
    h(
      "div",
      { class: "pe-i-ends" },
      name("→ 0", 2 ** from, range.least),
      name("subnormal", range.least, range.normal),
      name(`normal ${format}`, range.normal, range.max),
      name("overflow", range.max, 2 ** to),
    ),
  );
}

const totals = new WeakMap<Figures, number>();

/** Returns the latency of all layers that shares are of, casts apart; NaN when none is known. */
export function totalLatency(f: Figures): number {
  let total = totals.get(f);
  if (total === undefined) {
    const known = Array.from(f.latency_us).filter((us) => !Number.isNaN(us));
    total = known.length > 0 ? known.reduce((sum, us) => sum + us, 0) : Number.NaN;
    totals.set(f, total);
  }
  return total;
}

export function latencySection(store: Store, layer: number, folded: Map<string, boolean>): HTMLElement | null {
  const f = store.figures;
  const [before, after] = [at(f.fp32_us, layer), at(f.plan_us, layer)];
  if (!f.latencyProvenance || (Number.isNaN(before) && Number.isNaN(after))) return null;
  if ((before === 0 && !(after > 0)) || (after === 0 && store.kernel(layer))) {
    // Kernels are timed, not layers: that of a fused group stands at one of them.
    const words = h("p", { class: "pe-i-reason" }, "Fused with its neighbours: the time stands at one of them.");
    return section("Latency", folded, words, ...kernelPart(store, layer), provenance(f.latencyProvenance) ?? "");
  }
  const rows: [string, string][] = [];
  if (!Number.isNaN(before)) rows.push(["fp32", duration(before)]);
  if (!Number.isNaN(after)) {
    const ratio = before / after;
    const faster =
      ratio > 1.005 ? ` (${quantity(ratio, 3)}× faster)` : ratio < 0.995 ? ` (${quantity(1 / ratio, 3)}× slower)` : "";
    rows.push(["plan", `${duration(after)}${faster}`]);
  }
  rows.push(["share", `${share(at(f.latency_us, layer) / totalLatency(f))} of all layers`]);
  return section(
    "Latency",
    folded,
    f.latencyStandsIn ? h("p", { class: "pe-i-reason" }, "Until the plan has been measured:") : "",
    pairs(...rows),
    ...kernelPart(store, layer),
    provenance(f.latencyProvenance) ?? "",
  );
}
