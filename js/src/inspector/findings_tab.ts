/** The tab Findings: what breaks and why, in words, with the fix one click away. */
import { h } from "../dom";
import type { FindingState } from "../protocol";
import type { Store } from "../store";
import { codeBlock } from "./highlight";
import { prose, visible } from "./names";
import { plural } from "./numbers";
import { warningList } from "./overview";
import type { Part } from "./part";
import { button, icon, refill } from "./ui";

const TONES = { stop: "Breaks", warn: "Warning", good: "Good", note: "Note" };

export function createFindingsTab(store: Store): Part {
  const element = h("div", { class: "pe-i-scroll" });
  return {
    element,
    update() {
      const { findings, warnings, run } = store.state;
      refill(element, [findings, warnings, run.state, store.stale, store.figures.errorsRevision], () => [
        warningList(warnings),
        findings.length > 0 && store.stale
          ? h("p", { class: "pe-i-small" }, "These belong to the plan before; they follow when the run is done.")
          : null,
        ...findings.map((finding) => card(store, finding)),
        findings.length === 0 ? empty(store) : null,
      ]);
    },
    dispose: () => element.remove(),
  };
}

function empty(store: Store): HTMLElement {
  const { run } = store.state;
  if (run.state === "running")
    return h(
      "p",
      { class: "pe-i-empty", role: "status" },
      "The plan is being measured. Findings follow when the run is done.",
    );
  if (store.figures.errorsRevision < 0) {
    const why = run.error ? visible(run.error.what) : "Nothing has been measured yet.";
    return h("p", { class: "pe-i-empty" }, why);
  }
  return h("p", { class: "pe-i-empty" }, icon("good"), "Nothing stands out under this plan.");
}

function card(store: Store, finding: FindingState): HTMLElement {
  const title = h("h3", {}, visible(finding.title));
  const show = (): void => {
    const [first = -1] = finding.layers;
    if (finding.layers.length === 1) store.reveal(first);
    else store.select(finding.layers, first);
  };
  const fix = finding.fix !== "" && !store.source.readOnly;
  return h(
    "article",
    { class: `pe-i-card pe-i-card-${finding.tone}${store.stale ? " pe-i-stale" : ""}` },
    h("header", {}, icon(finding.tone, TONES[finding.tone]), title),
    h("p", {}, prose(finding.text)),
    finding.evidence && h("p", { class: "pe-i-evidence" }, prose(finding.evidence)),
    h(
      "div",
      { class: "pe-i-row" },
      finding.layers.length > 0 &&
        button(
          `Show ${finding.layers.length === 1 ? "the layer" : `the ${plural(finding.layers.length, "layer")}`}`,
          show,
          { key: `show ${finding.id}` },
        ),
      fix &&
        button(visible(finding.fix), () => void store.edit({ op: "fix", finding: finding.id }), {
          class: "pe-i-primary",
          key: `fix ${finding.id}`,
        }),
    ),
    finding.code && codeBlock(finding.code, "Copy the call"),
  );
}
