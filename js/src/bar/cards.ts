/** The headline figures, each as a small card with how it came to be. */
import { h } from "../dom";
import type { Figure, Headline, PanelState } from "../protocol";
import type { Store } from "../store";
import { setText } from "./controls";
import type { Tip } from "./tip";

type Key = keyof Headline;

/** By figure: its label, what it means, and what is shown while it is not known. */
const CARDS: Record<Key, { means: string; unknown: string }> = {
  output_error: {
    means: "Signal to rounding noise of the worst model output (SQNR): each 20 dB is a factor of ten.",
    unknown: "not measured",
  },
  metric: { means: "Share of samples that are classified right, in fp32 and under the plan.", unknown: "" },
  low_share: { means: "Layers that run in the low format, of those that carry floats.", unknown: "unknown" },
  casts: { means: "Cast nodes that conversion inserts where formats meet.", unknown: "unknown" },
  latency: { means: "One run of the whole model.", unknown: "unknown" },
};
const ORDER = ["output_error", "metric", "low_share", "casts", "latency"] as const;
const LONG = 20; // characters that a card of the usual width holds
const STOP_DB = 10; // dB; below it the error is a third of the signal
const WARN_DB = 20; // dB; an error of a tenth of the signal

export function createCards(host: HTMLElement, store: Store, tip: Tip): { update(): void } {
  const cards = ORDER.map((key) => {
    const value = h("span", { class: "pe-card-value" });
    const source = h("span", { class: "pe-card-source" });
    const label = h("span", { class: "pe-card-label" });
    // tabindex: the tooltip must be within reach of the keyboard.
    const element = h(
      "div",
      { class: "pe-card", role: "group", tabindex: 0, "data-figure": key },
      label,
      value,
      source,
    );
    let full = "";
    tip.attach(element, () => full);
    const show = (state: PanelState): void => {
      const figure = state.headline[key];
      element.hidden = key === "metric" && figure === null;
      const words = figure?.provenance || waysToKnow(key, state);
      setText(label, labelOf(key, state));
      setText(value, figure?.text || CARDS[key].unknown);
      setText(source, words);
      full = [CARDS[key].means, words && `How it came to be: ${words}.`].filter(Boolean).join(" ");
      element.dataset.tone = key === "output_error" ? toneOf(figure) : "";
      element.classList.toggle("pe-unknown", figure === null);
      element.classList.toggle("pe-card-long", (figure?.text.length ?? 0) > LONG);
      element.setAttribute("aria-label", `${label.textContent}: ${value.textContent}${words ? `, ${words}` : ""}`);
    };
    return { key, element, show };
  });
  host.append(...cards.map((card) => card.element));
  return {
    update() {
      const state = store.state;
      // What conversion and roofline tell comes with the plan; errors and accuracy come with the run after it.
      const other = store.preview !== null; // what is looked at is another plan
      const plan = store.stale && store.figures.errorsRevision === state.revision;
      for (const { key, element, show } of cards) {
        show(state);
        const old = key === "output_error" || key === "metric" ? store.stale : plan;
        const standsIn = key === "latency" && store.figures.latencyStandsIn;
        element.classList.toggle("pe-stale", old || other || standsIn);
        if (old) element.setAttribute("aria-label", `${element.getAttribute("aria-label")}, of the plan before`);
      }
    },
  };
}

function labelOf(key: Key, state: PanelState): string {
  if (key === "low_share") {
    const mixed = state.format !== "int8" && state.calibration.wanted;
    return mixed ? "In low formats" : `In ${state.format}`;
  }
  return { output_error: "Output error", metric: "Accuracy", casts: "Casts", latency: "Latency" }[key];
}

/** Returns how a figure that is not known can be had. */
function waysToKnow(key: Key, state: PanelState): string {
  if (key === "latency" && !state.gpu)
    return state.devices.length > 0 && !state.created ? "choose what to show it of" : "";
  if (state.run.state !== "running") return "";
  return key === "output_error" ? "being measured" : key === "latency" ? "being worked out" : "";
}

function toneOf(figure: Figure | null): string {
  if (!figure || figure.value === null || figure.value === "inf") return "";
  if (typeof figure.value === "string" || figure.value < STOP_DB) return "stop";
  return figure.value < WARN_DB ? "warn" : "";
}
