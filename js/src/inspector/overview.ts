/** The model as a whole, when no layer is selected. */
import { h } from "../dom";
import type { Store } from "../store";
import { calibrationKey, calibrationSection } from "./calibration";
import { measuredKey, measuredSection } from "./measured";
import { shorten, tip, visible } from "./names";
import { deviation, float, plural, relative, sqnr } from "./numbers";
import type { Part } from "./part";
import { worst, worstList } from "./several";
import { icon, pairs, provenance, refill, section } from "./ui";

const WORST = 5;

export function createOverview(store: Store, folded: Map<string, boolean>): Part {
  const element = h("div", { class: "pe-i-overview" });
  return {
    element,
    update() {
      const { outputs, warnings, samples, random, revision, run } = store.state;
      const { errorsRevision, errorProvenance } = store.figures;
      const key = [
        outputs,
        warnings,
        samples,
        random,
        revision,
        run.state,
        errorsRevision,
        errorProvenance,
        store.stale,
        measuredKey(store),
        calibrationKey(store),
      ];
      refill(element, key, () => [
        header(store),
        outputSection(store, folded),
        worstSection(store, folded),
        measuredSection(store, folded),
        calibrationSection(store, folded),
        modelSection(store, folded),
      ]);
    },
    dispose: () => element.remove(),
  };
}

function header(store: Store): HTMLElement {
  const hint = store.source.readOnly
    ? "Click a layer to see its figures; shift-click adds layers."
    : "Click a layer to see its figures, click its badge or press space to toggle its format.";
  const { warnings, random } = store.state;
  const all =
    random && !warnings.some((text) => /random/i.test(text))
      ? ["The inputs are random: ranges and errors are not to be trusted.", ...warnings]
      : warnings;
  return h(
    "header",
    { class: "pe-i-header" },
    h(
      "div",
      { class: "pe-i-title" },
      h("h2", { title: tip(store.model.structure.name) }, shorten(store.model.structure.name, 60)),
    ),
    h("p", { class: "pe-i-reason" }, hint),
    warningList(all),
  );
}

/** Returns what the reader must know before trusting the figures. */
export function warningList(warnings: string[]): HTMLElement | null {
  if (warnings.length === 0) return null;
  return h(
    "ul",
    { class: "pe-i-warnings", "aria-label": "Warnings" },
    ...warnings.map((text) => h("li", {}, icon("warn", "Warning"), h("span", {}, visible(text)))),
  );
}

function outputSection(store: Store, folded: Map<string, boolean>): HTMLElement {
  const { outputs, run } = store.state;
  if (outputs.length === 0) {
    const pending = run.state === "running" ? "Errors are being measured." : "Not measured.";
    return section("Outputs under the plan", folded, h("p", { class: "pe-i-small" }, pending));
  }
  const rows = outputs.map((output) => {
    const db = sqnr(float(output.sqnr_db));
    const lost = [
      output.overflow > 0 && plural(output.overflow, "infinity", "infinities"),
      output.nan > 0 && plural(output.nan, "NaN", "NaN"),
    ]
      .filter(Boolean)
      .join(", ");
    return h(
      "tr",
      {},
      h("th", { scope: "row", title: tip(output.name) }, shorten(output.name, 40)),
      h(
        "td",
        { class: db === "not finite" ? "pe-i-stop" : "" },
        db === "not finite" && icon("stop"),
        db,
        lost && h("div", { class: "pe-i-small" }, lost),
      ),
      h("td", {}, deviation(float(output.max_abs))),
      h("td", {}, relative(float(output.rel_l2))),
    );
  });
  const head = ["output", "SQNR", "max |e|", "rel. L2"].map((label) => h("th", { scope: "col" }, label));
  return section(
    "Outputs under the plan",
    folded,
    h(
      "div",
      { class: "pe-i-wide" },
      h(
        "table",
        { class: store.stale ? "pe-i-outputs pe-i-stale" : "pe-i-outputs" },
        h("thead", {}, h("tr", {}, ...head)),
        h("tbody", {}, ...rows),
      ),
    ),
    provenance(store.figures.errorProvenance) ?? "",
  );
}

function worstSection(store: Store, folded: Map<string, boolean>): HTMLElement | null {
  const found = worst(
    store,
    Array.from({ length: store.model.layers }, (_, layer) => layer),
    WORST,
  );
  return found.length > 0 ? section("Largest accumulated error", folded, worstList(store, found)) : null;
}

function modelSection(store: Store, folded: Map<string, boolean>): HTMLElement {
  const { structure } = store.model;
  const tensor = (index: number): string => {
    const { dtype, shape } = structure.tensors;
    return `${structure.dtypes[dtype[index] ?? -1] ?? ""} ${shape[index] ?? "?"}`;
  };
  const list = (names: string[], tensors: number[]): HTMLElement =>
    h(
      "ul",
      { class: "pe-i-plainlist" },
      ...names.map((name, index) =>
        h(
          "li",
          { title: tip(name) },
          h("span", {}, shorten(name, 40)),
          h("span", { class: "pe-i-type" }, tensor(tensors[index] ?? -1)),
        ),
      ),
    );
  return section(
    "Model",
    folded,
    pairs(
      ["layers", plural(store.model.layers, "layer")],
      ["inputs", list(structure.inputs.name, structure.inputs.tensor)],
      ["outputs", list(structure.outputs.name, structure.outputs.tensor)],
      ["samples", visible(store.state.samples)],
      ["opset", String(structure.opset)],
      structure.producer !== "" && ["made by", shorten(structure.producer)],
    ),
  );
}
