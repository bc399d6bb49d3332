/** The search for the best plans: starts it, shows how far it is, stops it, and says what came of it. */
import { setText } from "../bar/controls";
import { h } from "../dom";
import type { SearchState } from "../protocol";
import type { Store } from "../store";
import { prose, visible } from "./names";
import { fixed } from "./numbers";
import type { Part } from "./part";
import { button, icon } from "./ui";

const INTRO =
  "Finds the fastest plan for every error that you may spend: what rounding each tensor costs is measured and weighed " +
  "against time, and the best plans are run. The first are there in seconds; stop when you like.";

export function createSearchPanel(store: Store): Part {
  const intro = h("p", { class: "pe-i-small" }, INTRO);
  const stale = h("p", { class: "pe-i-overruled", role: "status" }, icon("warn", "Warning"), h("span", {}));
  const what = h("p", { class: "pe-i-what" });
  const rest = h("p", {});
  const failure = h("div", { class: "pe-i-refusal", role: "alert" }, icon("stop", "Failed"), h("div", {}, what, rest));
  const start = button("", () => void press("search"), { key: "search" });
  const stage = h("span", { class: "pe-i-stage", role: "status" });
  const meter = h("progress", { max: 1, "aria-label": "Progress of the search" });
  const left = h("span", { class: "pe-i-left" });
  const stop = button("Stop", () => void press("stop"), {
    key: "stop",
    title: "Stops it: what was found stays, and a later search goes on from there",
  });
  const running = h("div", { class: "pe-i-searching" }, stage, meter, left, stop);
  const summary = h("p", { class: "pe-i-small" });
  const element = h("div", { class: "pe-i-search" }, intro, stale, failure, start, running, summary);

  let waiting = false; // for the answer: one click, one request
  const press = async (which: "search" | "stop"): Promise<void> => {
    if (waiting) return;
    waiting = true;
    part.update();
    await (which === "search" ? store.search() : store.stopSearch());
    waiting = false;
    part.update();
  };
  const part: Part = {
    element,
    update() {
      const { search } = store.state;
      const fixedPage = store.source.readOnly;
      const isRunning = search.state === "running";
      const none = search.points.length === 0;
      intro.hidden = fixedPage || isRunning || !none || search.state === "failed";
      stale.hidden = search.stale === "";
      setText(stale.lastChild as HTMLElement, `The front does not fit any more: ${visible(search.stale)}.`);
      const error = search.state === "failed" ? search.error : null;
      failure.hidden = search.state !== "failed";
      setText(what, prose(error?.what ?? "The search failed."));
      setText(rest, prose([error?.why, error?.fix].filter(Boolean).join(" ")));
      start.hidden = fixedPage || isRunning;
      start.disabled = waiting;
      start.className = `pe-i-button ${none || search.stale ? "pe-i-primary" : ""}`.trim();
      setText(start, labelOf(search));
      running.hidden = !isRunning;
      stop.hidden = fixedPage;
      stop.disabled = waiting;
      setText(stage, visible(search.stage) || "searching");
      if (search.total > 0) meter.value = Math.min(1, search.done / search.total);
      else meter.removeAttribute("value"); // how much there is to do is not known
      setText(left, leftWords(search.seconds_left));
      const stopped = search.state === "cancelled" && !none ? "Stopped before it was done. " : "";
      setText(summary, stopped + prose(search.summary));
    },
    dispose: () => element.remove(),
  };
  return part;
}

function labelOf({ state, points, stale }: SearchState): string {
  if (state === "failed") return "Try again";
  if (state === "cancelled" && !stale) return "Go on searching";
  return points.length === 0 ? "Find the best plans" : "Search again";
}

function leftWords(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return "";
  if (seconds < 1) return "nearly done";
  return seconds < 90 ? `about ${fixed(seconds, 0)} s left` : `about ${fixed(seconds / 60, 0)} min left`;
}
