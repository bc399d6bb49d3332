/** What was measured of the plan where it runs: the whole model, kernels, what the backend inserted and overruled. */
import { h } from "../dom";
import type { Kernel } from "../protocol";
import type { Store } from "../store";
import { visible } from "./names";
import { duration, float, plural } from "./numbers";
import { icon, layerLink, pairs, provenance, section } from "./ui";

const LISTED = 8;

/** Returns the section about the whole model; null where no device that measures is chosen, or nothing is known. */
export function measuredSection(store: Store, folded: Map<string, boolean>): HTMLElement | null {
  const { measured } = store.state;
  if (!measured) return null;
  const title = "Measured latency";
  const whole = float(measured.whole_us);
  if (Number.isNaN(whole)) {
    if (!measured.refused) return null;
    return section(title, folded, h("p", { class: "pe-i-overruled" }, icon("warn"), visible(measured.refused)));
  }
  const [spread, layers, overhead] = [measured.spread_us, measured.layers_us, measured.overhead_us].map(float);
  const kernels = store.figures.kernels.filter((kernel) => kernel.kind === "layer" && kernel.layers.length > 0);
  const shared = kernels.filter((kernel) => kernel.layers.length > 1);
  return section(
    title,
    folded,
    pairs(
      ["whole model", `${duration(whole)}${spread ? ` ± ${duration(spread)}` : ""}`],
      !Number.isNaN(layers) && ["sum of layers", `${duration(layers as number)}, timed one by one`],
      !Number.isNaN(overhead) && ["outside of layers", duration(overhead as number)],
      shared.length > 0 && ["fused", `${plural(shared.length, "kernel")} of several layers`],
      measured.formats !== "" && ["formats", visible(measured.formats)],
    ),
    inserted(store),
    overruledList(store),
    ...measured.notes.map((note) => h("p", { class: "pe-i-small" }, visible(note))),
    provenance(measured.provenance) ?? "",
  );
}

export function measuredKey(store: Store): unknown {
  return [store.state.measured, store.figures.kernels.length, store.figures.latencyProvenance];
}

/** Returns casts, copies and reformats that stand between layers, the longest first. */
function inserted(store: Store): HTMLElement | "" {
  const found = store.figures.kernels
    .filter((kernel) => kernel.kind !== "layer" && float(kernel.us) > 0)
    .sort((a, b) => float(b.us) - float(a.us));
  if (found.length === 0) return "";
  const total = found.reduce((sum, kernel) => sum + float(kernel.us), 0);
  const rows = found
    .slice(0, LISTED)
    .map((kernel) =>
      h(
        "li",
        {},
        h("span", { class: "pe-i-op" }, kernel.kind),
        place(store, kernel),
        h("span", { class: "pe-i-figure" }, duration(float(kernel.us))),
      ),
    );
  const more = found.length > LISTED ? ` The ${LISTED} longest:` : "";
  return h(
    "div",
    {},
    h("p", { class: "pe-i-small" }, `Between layers: ${plural(found.length, "kernel")}, ${duration(total)}.${more}`),
    h("ol", { class: "pe-i-worst" }, ...rows),
  );
}

function place(store: Store, kernel: Kernel): HTMLElement {
  const [layer] = kernel.layers;
  if (layer === undefined) return h("span", { class: "pe-i-plain" }, visible(kernel.name));
  return layerLink(store, layer);
}

/** Returns the layers that did not run in the format that was decided. */
function overruledList(store: Store): HTMLElement | "" {
  const found: [number, string][] = [];
  for (let layer = 0; layer < store.model.layers; layer++) {
    const ran = store.overruled(layer);
    if (ran) found.push([layer, ran]);
  }
  if (found.length === 0) return "";
  const rows = found
    .slice(0, LISTED)
    .map(([layer, ran]) =>
      h(
        "li",
        {},
        layerLink(store, layer),
        h("span", { class: "pe-i-figure" }, `asked ${store.formatOf(layer)}, ran ${ran}`),
      ),
    );
  const more = found.length > LISTED ? `, of which ${LISTED}:` : ":";
  return h(
    "div",
    {},
    h("p", { class: "pe-i-small" }, `${plural(found.length, "layer")} ran in another format${more}`),
    h("ol", { class: "pe-i-worst" }, ...rows),
  );
}

/** Returns what is known of the kernel that computed one layer, for its section on latency. */
export function kernelPart(store: Store, layer: number): (HTMLElement | "")[] {
  const kernel = store.kernel(layer);
  if (!kernel) return [];
  const others = kernel.layers.filter((other) => other !== layer);
  const ran = store.overruled(layer);
  const inFormat = kernel.format ? `, in ${kernel.format}` : "";
  return [
    pairs(["kernel", h("code", {}, `${visible(kernel.name)}${inFormat}`)]),
    ran
      ? h(
          "p",
          { class: "pe-i-overruled" },
          icon("warn", "Overruled"),
          `Asked ${store.formatOf(layer)}, ran ${ran}: the backend chose it.`,
        )
      : "",
    others.length > 0
      ? h(
          "div",
          {},
          h(
            "p",
            { class: "pe-i-small" },
            `${duration(float(kernel.us))} together with ${plural(others.length, "layer")}:`,
          ),
          h(
            "ol",
            { class: "pe-i-worst" },
            ...others.slice(0, LISTED).map((other) => h("li", {}, layerLink(store, other))),
          ),
        )
      : "",
    kernel.note ? h("p", { class: "pe-i-small" }, visible(kernel.note)) : "",
  ];
}
