/** Where the scales of int8 come from, and buttons that find them anew. */
import { h } from "../dom";
import type { Store } from "../store";
import { visible } from "./names";
import { button, pairs, section } from "./ui";

const ABOUT: Record<string, string> = {
  minmax: "The largest value that was seen",
  percentile: "All but the largest 0.01 % of the values",
  entropy: "Where the distribution of values changes least",
};

/** Returns the section; null where nothing runs in int8. */
export function calibrationSection(store: Store, folded: Map<string, boolean>): HTMLElement | null {
  const { calibration } = store.state;
  if (!calibration.wanted) return null;
  const busy = store.state.run.state === "running";
  const buttons = calibration.methods.map((method) =>
    button(method, () => void store.calibrate(method), {
      key: `calibrate ${method}`,
      pressed: method === calibration.method,
      disabled: busy,
      title: `${ABOUT[method] ?? method}: calibrate anew, in the background`,
    }),
  );
  return section(
    "Calibration of int8",
    folded,
    pairs(["scales", calibration.text || "made on the samples, at the first run"]),
    ...calibration.notes.map((note) => h("p", { class: "pe-i-small" }, visible(note))),
    store.source.readOnly
      ? ""
      : h("div", { class: "pe-i-row" }, h("span", { class: "pe-i-small" }, "Calibrate by"), choice(buttons)),
  );
}

/** What a refill of the section depends on. */
export function calibrationKey(store: Store): unknown {
  return [store.state.calibration, store.state.run.state === "running", store.source.readOnly];
}

function choice(buttons: HTMLElement[]): HTMLElement {
  return h("div", { class: "pe-i-choice", role: "group", "aria-label": "Calibrate by" }, ...buttons);
}
