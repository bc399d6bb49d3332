/** "What if": a change of the plan is run without being set, and what it would do is shown in place. */
import { h } from "../dom";
import type { Edit, TrialResult } from "../protocol";
import type { Store } from "../store";
import { visible } from "./names";
import { duration, errorWithDb, float, share } from "./numbers";
import { button, refusal } from "./ui";

export interface Trial {
  readonly button: HTMLButtonElement;
  /** What came of it: empty before it was asked for. */
  readonly result: HTMLElement;
}

export interface Trials {
  /** Returns the trial of an edit; the same elements for the same key until the plan changes. */
  of(key: string, label: string, edit: Edit, title: string): Trial;
}

/** Returns a keeper of trials: their results outlast that the tab around them is filled anew. */
export function createTrials(store: Store): Trials {
  const made = new Map<string, Trial>();
  let revision = store.state.revision;
  return {
    of(key, label, edit, title) {
      if (store.state.revision !== revision) made.clear(); // they were trials of another plan
      revision = store.state.revision;
      let trial = made.get(key);
      if (!trial) {
        trial = createTrial(store, key, label, edit, title);
        made.set(key, trial);
      }
      return trial;
    },
  };
}

function createTrial(store: Store, key: string, label: string, edit: Edit, title: string): Trial {
  const result = h("div", { class: "pe-i-trial", role: "status" });
  const act = button(label, () => void run(), { title, key: `trial ${key}` });
  const run = async (): Promise<void> => {
    act.disabled = true;
    act.setAttribute("aria-busy", "true");
    result.replaceChildren(h("p", { class: "pe-i-running" }, "Running it: the plan stays as it is."));
    try {
      result.replaceChildren(...outcome(store, await store.source.request("trial", { edit })));
    } catch (error) {
      result.replaceChildren(refusal(error));
    } finally {
      act.disabled = false;
      act.removeAttribute("aria-busy");
    }
  };
  return { button: act, result };
}

/** Returns before and after in a table, of what is known on either side. */
function outcome(store: Store, { before, after, text }: TrialResult): HTMLElement[] {
  const rows: [string, string, string, number][] = [];
  const add = (label: string, now: number, then: number, words: (value: number) => string, better: 1 | -1): void => {
    if (Number.isNaN(now) && Number.isNaN(then)) return;
    const alike = words(now) === words(then) || Number.isNaN(now) || Number.isNaN(then);
    rows.push([label, words(now), words(then), alike ? 0 : better * Math.sign(then - now)]);
  };
  add("output error", float(before.error), float(after.error), errorWithDb, -1);
  add(store.state.headline.metric ? "accuracy" : "metric", float(before.metric), float(after.metric), share, 1);
  add("latency", float(before.latency_us), float(after.latency_us), duration, -1);
  const table = h(
    "table",
    { class: "pe-i-outcome" },
    h("thead", {}, h("tr", {}, h("td"), h("th", { scope: "col" }, "now"), h("th", { scope: "col" }, "then"), h("td"))),
    h(
      "tbody",
      {},
      ...rows.map(([label, now, then, way]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, label),
          h("td", {}, now),
          h("td", {}, then),
          h("td", { class: "pe-i-way" }, way > 0 ? "better" : way < 0 ? "worse" : now === then ? "same" : ""),
        ),
      ),
    ),
  );
  return [table, h("p", { class: "pe-i-provenance" }, visible(text))];
}
