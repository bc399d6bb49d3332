/** All about one layer: what it is, what the plan does to it, its values, and where it comes from. */
import { consequences } from "../consequences";
import { h } from "../dom";
import type { Store } from "../store";
import { calibrationKey, calibrationSection } from "./calibration";
import { formatChoice } from "./format_choice";
import { createDetails } from "./layer_details";
import { errorSection, latencySection, rangeSection } from "./layer_figures";
import { createValues } from "./layer_values";
import { visible } from "./names";
import type { Part } from "./part";
import { createTrials, type Trials } from "./trial";
import { badge, button, copyButton, icon, provenance, refill, section } from "./ui";

export function createLayerView(store: Store, folded: Map<string, boolean>): Part {
  const head = h("header", { class: "pe-i-header" });
  const figures = h("div");
  const would = h("div");
  const trials = createTrials(store);
  const values = createValues(store, folded);
  const details = createDetails(store, folded);
  const element = h("div", { class: "pe-i-layer" }, head, would, figures, values.element, details.element);
  return {
    element,
    update(topic) {
      const layer = store.focus;
      refill(head, headKey(store, layer), () => header(store, layer));
      if (topic === "preview") return; // of a plan that is not set only the formats are known
      refill(would, wouldKey(store, layer), () => [wouldSection(store, layer, trials, folded)]);
      refill(figures, figuresKey(store, layer), () => [
        errorSection(store, layer, folded),
        rangeSection(store, layer, folded),
        latencySection(store, layer, folded),
        store.formatOf(layer) === "int8" ? calibrationSection(store, folded) : null,
      ]);
      values.update();
      details.update();
    },
    dispose() {
      values.dispose();
      details.dispose();
      element.remove();
    },
  };
}

function headKey(store: Store, layer: number): unknown {
  const { asked, formats } = store.figures;
  const words = [store.formatOf(layer), store.reasonOf(layer), formats[asked[layer] ?? 0], store.state.format];
  return [layer, words, store.isBlacklisted(layer), store.isSwitchable(layer), store.state.uses];
}

function figuresKey(store: Store, layer: number): unknown {
  const f = store.figures;
  // Words, not numbers: JSON would write NaN and both infinities alike.
  const numbers = [
    ...[f.local_sqnr_db, f.local_rel_l2, f.local_max_abs, f.acc_sqnr_db, f.acc_rel_l2, f.acc_max_abs],
    ...[
      f.sensitivity_db,
      f.max_abs,
      f.rms,
      f.overflow,
      f.nan,
      f.subnormal,
      f.flushed,
      f.elements,
      f.fp32_us,
      f.plan_us,
    ],
  ].map((column) => String(column[layer]));
  const sources = [f.errorProvenance, f.rangeProvenance, f.latencyProvenance, store.state.samples];
  const formats = [store.state.format, store.formatOf(layer), store.kernel(layer), f.latencyStandsIn];
  return [layer, numbers, sources, store.stale, f.firstNonfinite, formats, store.state.random, calibrationKey(store)];
}

function header(store: Store, layer: number): (Node | null)[] {
  const { model } = store;
  const id = h("code", { class: "pe-i-id" }, visible(model.name(layer)));
  const { asked, formats } = store.figures;
  const wanted = formats[asked[layer] ?? 0] ?? "none";
  const got = store.formatOf(layer);
  const overruled = wanted !== "none" && got !== "none" && wanted !== got;
  const why = visible(store.reasonOf(layer));
  return [
    h(
      "div",
      { class: "pe-i-title" },
      h("h2", {}, visible(model.op(layer))),
      badge(store, layer),
      blockButton(store, layer),
    ),
    h(
      "div",
      { class: "pe-i-idline" },
      id,
      copyButton(
        () => model.name(layer),
        () => id,
        "Copy the layer's id",
      ),
    ),
    formatChoice(store, [layer]),
    overruled
      ? h("p", { class: "pe-i-overruled" }, icon("warn", "Overruled"), `Asked for ${wanted}, runs in ${got}: ${why}`)
      : why
        ? h("p", { class: "pe-i-reason" }, `${got === "none" ? "No format" : got}: ${why}`)
        : null,
  ];
}

function wouldKey(store: Store, layer: number): unknown {
  const { revision, search } = store.state;
  const known = search.points.length > 0;
  return [layer, revision, consequences(store, layer), store.runsLow(layer), known, store.source.readOnly];
}

/** Returns what would follow if the layer changed sides, and a button that runs it; null where neither can be. */
function wouldSection(store: Store, layer: number, trials: Trials, folded: Map<string, boolean>): HTMLElement | null {
  const would = consequences(store, layer);
  const can = store.isSwitchable(layer) && !store.source.readOnly && !store.preview;
  if (!would && !can) return null;
  const to = store.runsLow(layer) ? "fp32" : store.state.format;
  const edit = { op: "toggle" as const, layers: [layer] };
  const trial = can
    ? trials.of(`${layer}`, "What if", edit, `Runs the plan with this layer in ${to}; the plan stays as it is`)
    : null;
  const unknown = "What it would cost and save is predicted once you search for the best plans (tab Trade-off).";
  return section(
    `If it ran in ${to}`,
    folded,
    would
      ? h("p", { class: "pe-i-would" }, [would.error, would.time].filter(Boolean).join(" "))
      : h("p", { class: "pe-i-small" }, unknown),
    trial ? h("div", { class: "pe-i-row" }, trial.button) : "",
    trial ? trial.result : "",
    (would && provenance(would.provenance)) ?? "",
  );
}

function blockButton(store: Store, layer: number): HTMLElement | null {
  if (store.source.readOnly || !store.isSwitchable(layer)) return null;
  const blocked = store.isBlacklisted(layer);
  return button(
    blocked ? "Allow" : "Block",
    () => void store.edit({ op: blocked ? "allow" : "block", layers: [layer] }),
    {
      title: blocked ? "Take it off the blacklist (b)" : "Put it on the blacklist: it stays in fp32 (b)",
      key: "block",
    },
  );
}
