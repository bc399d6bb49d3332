/** The tab Findings: what breaks and why, in words, with the fix one click away. */
import { h } from "../dom";
import type { FindingState } from "../protocol";
import type { Store } from "../store";
import { codeBlock } from "./highlight";
import { prose, visible } from "./names";
import { count, plural } from "./numbers";
import { warningList } from "./overview";
import type { Part } from "./part";
import { createTrials, type Trials } from "./trial";
import { button, icon, refill } from "./ui";

const TONES = { stop: "Breaks", warn: "Warning", good: "Good", note: "Note" };

export function createFindingsTab(store: Store): Part {
  const element = h("div", { class: "pe-i-scroll" });
  const trials = createTrials(store);
  let open = false; // the causes that were not found
  return {
    element,
    update() {
      const { findings, warnings, run, revision } = store.state;
      const found = findings.filter((finding) => !isFolded(finding));
      const folded = findings.filter(isFolded);
      const key = [findings, warnings, run.state, store.stale, store.figures.errorsRevision, revision];
      refill(element, [...key, store.source.readOnly], () => [
        warningList(warnings),
        findings.length > 0 && store.stale
          ? h("p", { class: "pe-i-small" }, "These belong to the plan before; they follow when the run is done.")
          : null,
        ...found.map((finding) => card(store, finding, trials)),
        found.length === 0 ? empty(store) : null,
        folded.length > 0
          ? foldedCauses(store, folded, trials, open, (is) => {
              open = is;
            })
          : null,
      ]);
    },
    dispose: () => element.remove(),
  };
}

/** Returns whether a cause was not found to be one: the reader wants to know that it was tested, and no more. */
export function isFolded({ verdict }: FindingState): boolean {
  return verdict === "ruled out" || verdict === "untested";
}

/** Returns the causes that were ruled out or could not be tested, under a line that counts them. */
function foldedCauses(
  store: Store,
  causes: FindingState[],
  trials: Trials,
  open: boolean,
  opened: (open: boolean) => void,
): HTMLElement {
  const out = causes.filter(({ verdict }) => verdict === "ruled out").length;
  const untested = causes.length - out;
  const parts = [
    out > 0 && `${plural(out, "cause")} ruled out`,
    untested > 0 && `${out > 0 ? count(untested) : plural(untested, "cause")} not testable here`,
  ];
  const details = h(
    "details",
    { class: "pe-i-ruledout", open },
    h("summary", { "data-key": "ruled out" }, icon("fold"), h("span", {}, parts.filter(Boolean).join(", "))),
    ...causes.map((cause) => card(store, cause, trials)),
  );
  details.addEventListener("toggle", () => opened(details.open));
  return details;
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

function card(store: Store, finding: FindingState, trials: Trials): HTMLElement {
  const title = h("h3", {}, visible(finding.title));
  const show = (): void => {
    const [first = -1] = finding.layers;
    if (finding.layers.length === 1) store.reveal(first);
    else store.select(finding.layers, first);
  };
  const fix = finding.fix !== "" && !store.source.readOnly;
  const trial = fix
    ? trials.of(
        finding.id,
        "Try",
        { op: "fix", finding: finding.id },
        "Runs the plan with this fix; the plan stays as it is",
      )
    : null;
  return h(
    "article",
    { class: `pe-i-card pe-i-card-${finding.tone}${store.stale ? " pe-i-stale" : ""}` },
    h("header", {}, icon(finding.tone, TONES[finding.tone]), title, verdictBadge(finding)),
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
      trial?.button,
    ),
    trial?.result,
    finding.code && codeBlock(finding.code, "Copy the call"),
  );
}

const VERDICTS = {
  confirmed: ["confirmed", "Tested, and found to be a cause"],
  "ruled out": ["ruled out", "Tested, and found to be no cause"],
  untested: ["not testable here", "What the test needs is not there"],
} as const;

function verdictBadge({ verdict }: FindingState): HTMLElement | null {
  if (verdict === "") return null;
  const [words, title] = VERDICTS[verdict];
  return h("span", { class: `pe-i-verdict pe-i-verdict-${verdict.replace(" ", "-")}`, title }, words);
}
