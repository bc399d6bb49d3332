/** The state of the run: what is being done and how far it is, how to stop it, and why it failed. */
import { h } from "../dom";
import type { RunState } from "../protocol";
import type { Store } from "../store";
import { setText } from "./controls";

export interface Run {
  element: HTMLElement;
  /** What, why and fix of a failed run; a strip of its own, beneath the controls. */
  failure: HTMLElement;
  update(): void;
}

export function createRun(store: Store): Run {
  const sign = h("span", { class: "pe-run-sign", "aria-hidden": "true" });
  const words = h("span", { class: "pe-run-words", role: "status" }); // read out at each new stage, not at each step
  const meter = h("progress", { class: "pe-run-meter", max: 1, "aria-label": "Progress of the run" });
  const act = h("button", { type: "button", class: "pe-bar-button" });
  const element = h("div", { class: "pe-run" }, sign, words, meter, act);
  const what = h("strong", {});
  const rest = h("span", {});
  const failure = h("div", { class: "pe-strip pe-strip-stop", role: "alert", hidden: true }, what, " ", rest);
  const ask = (): void => {
    const kind = store.state.run.state === "running" ? "cancel" : "run";
    act.disabled = true; // until Python has answered: one click, one request
    store.source
      .request(kind, {})
      .catch((error: unknown) => store.refuse(error))
      .finally(() => {
        act.disabled = false;
      });
  };
  act.addEventListener("click", ask);
  return {
    element,
    failure,
    update() {
      const { run } = store.state;
      const waiting = store.stale || store.taking !== null;
      element.dataset.state = run.state === "idle" && waiting ? "waiting" : run.state;
      setText(words, wordsOf(run, waiting));
      words.title = words.textContent ?? "";
      meter.hidden = run.state !== "running";
      if (run.total > 0) meter.value = Math.min(1, run.done / run.total);
      else meter.removeAttribute("value"); // how much there is to do is not known
      const label = { running: "Cancel", failed: "Retry", cancelled: "Run again", idle: "" }[run.state];
      act.hidden = label === "";
      setText(act, label);
      const error = run.state === "failed" ? run.error : null;
      failure.hidden = error === null;
      setText(what, error?.what ?? "");
      setText(rest, [error?.why, error?.fix].filter(Boolean).join(" "));
    },
  };
}

function wordsOf(run: RunState, waiting: boolean): string {
  if (run.state === "running") return run.stage || "running";
  if (run.state === "failed") return "The run failed";
  if (run.state === "cancelled") return waiting ? "Cancelled: figures are of an older plan" : "Cancelled";
  if (waiting) return "about to run";
  return `up to date, ${run.seconds === null ? "ran before" : `ran in ${seconds(run.seconds)}`}`;
}

function seconds(value: number): string {
  if (value < 1) return `${Math.max(1, Math.round(value * 1000))} ms`;
  return value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}
