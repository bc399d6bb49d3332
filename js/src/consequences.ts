/** What switching one layer would cost in error and save in time, in words; the figures are those of the search. */
import { duration, errorFigure } from "./inspector/numbers";
import type { Store } from "./store";

export interface Consequences {
  to: string; // format that it would have
  error: string; // a sentence; "" where it is not known
  time: string;
  provenance: string;
}

/** Returns what would follow if a layer changed sides, the other layers as planned; null where nothing is known of it. */
export function consequences(store: Store, layer: number): Consequences | null {
  const { saves_us, costs } = store.figures;
  if (!store.isSwitchable(layer) || store.preview) return null; // the figures are of the plan that is set
  const [cost, saving] = [costs[layer] ?? Number.NaN, saves_us[layer] ?? Number.NaN];
  if (Number.isNaN(cost) && Number.isNaN(saving)) return null;
  const low = store.runsLow(layer);
  const { error_provenance, latency_provenance } = store.state.search;
  return {
    to: low ? "fp32" : store.state.format,
    error: Number.isNaN(cost) ? "" : `It would ${errorWords(cost, low)}.`,
    time: Number.isNaN(saving) ? "" : `It would ${timeWords(low ? -saving : saving)}.`,
    provenance: [
      !Number.isNaN(cost) && error_provenance && `error ${error_provenance}`,
      !Number.isNaN(saving) && latency_provenance && `time ${latency_provenance}`,
    ]
      .filter(Boolean)
      .join("; "),
  };
}

function errorWords(cost: number, low: boolean): string {
  if (cost === 0) return "not change the output error";
  if (!Number.isFinite(cost)) return low ? "keep the outputs finite" : "make the outputs inf or NaN";
  return `${low === cost > 0 ? "take" : "add"} ${errorFigure(Math.abs(cost))} ${low === cost > 0 ? "off" : "to"} the output error`;
}

function timeWords(saving: number): string {
  if (saving === 0) return "take the same time";
  const time = duration(Math.abs(saving));
  return saving > 0 ? `save ${time}, casts included` : `take ${time} longer, casts included`;
}
