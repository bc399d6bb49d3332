/** Values of a layer's output: histogram and scatter, asked for when a layer has been in focus for a moment. */
import { agreementSpec } from "../charts/agreement";
import { type Chart, createChart } from "../charts/chart";
import { histogramSpec } from "../charts/histogram";
import { formatColour } from "../colours";
import { h } from "../dom";
import type { LayerValues } from "../protocol";
import type { Store } from "../store";
import { prose, shorten } from "./names";
import { count } from "./numbers";
import type { Part } from "./part";
import { provenance, refusal, section, skeleton } from "./ui";

const PAUSE_MS = 180; // walking along the graph asks for nothing
const HISTOGRAM_PX = 190;
const SCATTER_PX = 230;
const PLAN = "plan"; // in place of a format's name: it has a colour of its own

export function createValues(store: Store, folded: Map<string, boolean>): Part {
  const body = h("div", { class: "pe-i-values" });
  const element = section("Values of the output", folded, body);
  let charts: Chart[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asked = ""; // what was asked for last: an older answer is dropped
  let shown = -1; // layer on screen
  let output = 0;

  const clear = (): void => {
    for (const chart of charts) chart.dispose();
    charts = [];
  };
  const show = (values: LayerValues): void => {
    clear();
    const { histogram, scatter, bands, layer } = values;
    // A layer that stays in fp32 differs under the plan all the same: by what its inputs have lost.
    const format = store.runsLow(layer) ? values.format : PLAN;
    charts.push(createChart(store.source, "Histogram of the output's values on a log2 axis", HISTOGRAM_PX));
    charts[0]?.draw((colours, width) => histogramSpec({ histogram, bands, format }, colours, width));
    if (scatter && scatter.exact.length > 0) {
      charts.push(createChart(store.source, `Values under the plan against fp32`, SCATTER_PX));
      charts[1]?.draw((colours) => agreementSpec(scatter, format, colours));
    }
    const all = scatter?.exact.length ?? 0;
    const drawn = scatter && scatter.total > all ? `${count(all)} of ${count(scatter.total)} values are drawn.` : "";
    const sampled = values.note ? prose(values.note) : drawn;
    body.replaceChildren(
      outputSelect(values),
      legend(values, format),
      charts[0]?.element ?? "",
      counts(values, format),
      charts[1]?.element ?? "",
      sampled && h("p", { class: "pe-i-small" }, sampled),
      provenance(values.provenance) ?? "",
    );
  };
  const outputSelect = (values: LayerValues): Node | string => {
    if (values.outputs.length < 2) return "";
    const chosen = h(
      "select",
      {
        "aria-label": "Output",
        onchange: () => {
          output = chosen.selectedIndex;
          ask(0);
        },
      },
      ...values.outputs.map((name) => h("option", { selected: name === values.output }, shorten(name))),
    );
    return h("label", { class: "pe-i-field" }, h("span", {}, "output"), chosen);
  };
  const ask = (pause: number): void => {
    const layer = store.focus;
    const wanted = `${layer} ${output} ${store.figures.errorsRevision}`;
    if (wanted === asked) return;
    asked = wanted;
    clearTimeout(timer);
    timer = setTimeout(async () => {
      try {
        const values = await store.source.request("values", { layer, output });
        if (asked === wanted) show(values);
      } catch (error) {
        if (asked !== wanted) return;
        clear();
        body.replaceChildren(refusal(error, store.source.readOnly));
      }
    }, pause);
  };
  element.addEventListener("toggle", () => part.update());
  const part: Part = {
    element,
    update() {
      body.classList.toggle("pe-i-stale", store.stale);
      if (shown !== store.focus) {
        shown = store.focus;
        output = 0;
        asked = "";
        clearTimeout(timer);
        clear();
        body.replaceChildren(skeleton(5));
      }
      // While a run is under way the figures on screen stay, greyed: their successors are asked for when it is done.
      if (element.open && shown >= 0 && (!store.stale || charts.length === 0)) ask(PAUSE_MS);
    },
    dispose() {
      asked = "";
      clearTimeout(timer);
      clear();
      element.remove();
    },
  };
  return part;
}

function legend({ histogram }: LayerValues, format: string): HTMLElement {
  const key = (kind: "exact" | "plan", colour: string): HTMLElement => {
    const patch = h("span", { class: `pe-i-key pe-i-key-${kind}`, "aria-hidden": "true" });
    patch.style.background = colour;
    return patch;
  };
  return h(
    "p",
    { class: "pe-i-legend" },
    key("exact", `color-mix(in srgb, ${formatColour("fp32", false)} 45%, transparent)`),
    "fp32",
    ...(histogram.plan
      ? [
          key("plan", `color-mix(in srgb, ${formatColour(format, false)}, var(--pe-ink) 25%)`),
          format === PLAN ? "under the plan" : format,
        ]
      : []),
  );
}

function counts({ histogram }: LayerValues, format: string): HTMLElement {
  const parts: string[] = [];
  const both = (label: string, exact: number, plan: number | null): void => {
    if (exact === 0 && !plan) return;
    parts.push(
      `${label}: ${count(exact)} in fp32${plan === null ? "" : `, ${count(plan)} ${format === PLAN ? "under the plan" : `in ${format}`}`}`,
    );
  };
  both("zero", histogram.exact_zeros, histogram.plan_zeros);
  both("inf or NaN", histogram.exact_nonfinite, histogram.plan_nonfinite);
  return h("p", { class: "pe-i-small" }, parts.join("; "));
}
