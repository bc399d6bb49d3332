/** The panel in a notebook: an anywidget. Traits carry the data, id-tagged messages carry requests. */
import { decodeFrame } from "../frame";
import { mountPanel } from "../panel";
import type { Figures, Kind, PanelState, Requests, Structure } from "../protocol";
import { type Plotly, RequestError, type Source } from "../source";
import "../style/panel.css";

/** What anywidget hands to `render` (https://anywidget.dev/en/afm/). */
interface AnyModel {
  get(name: string): unknown;
  on(event: string, handler: (...args: never[]) => void): void;
  off(event: string, handler: (...args: never[]) => void): void;
  send(content: unknown): void;
}

const GONE =
  "The kernel of this panel is gone, and what it knew with it: run the cell again. What is on screen stays as it was.";

interface Answer {
  id?: number;
  result?: unknown;
  error?: { what: string; why: string; fix: string };
}

/** Returns what the widget's traits and messages carry, as a source. */
export function widgetSource(model: AnyModel): Source {
  const structure = JSON.parse(new TextDecoder().decode(model.get("_structure") as DataView)) as Structure;
  let frame = model.get("_figures") as DataView;
  let figures: Figures = decodeFrame(frame);
  const waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  const watchers = new Set<() => void>();
  let next = 0;
  const changed = (): void => {
    const now = model.get("_figures") as DataView;
    if (now !== frame) figures = decodeFrame(now); // while a run makes progress, figures stay as they are
    frame = now;
    for (const watcher of watchers) watcher();
  };
  const answered = (answer: Answer, buffers: DataView[]): void => {
    const asked = answer.id === undefined ? undefined : waiting.get(answer.id);
    if (answer.id === undefined || !asked) return; // another view of the same widget asked
    waiting.delete(answer.id);
    if (answer.error) asked.reject(new RequestError(answer.error.what, answer.error.why, answer.error.fix));
    else asked.resolve(withBuffers(answer.result, buffers) as never);
  };
  // A restart of the kernel leaves views behind whose messages go nowhere. ipywidgets tells by this event that the line
  // was cut, or is there again, and does not say which: whoever answers is there.
  let gone = false;
  const cutOrBack = (): void => {
    gone = true;
    for (const { reject } of waiting.values()) reject(new RequestError(GONE));
    waiting.clear();
    for (const watcher of watchers) watcher();
    ask("ping", {}).then(
      () => {
        gone = false;
        changed();
      },
      () => undefined,
    );
  };
  function ask<K extends Kind>(kind: K, args: Requests[K][0]): Promise<Requests[K][1]> {
    const id = Math.floor(Math.random() * 1e9) * 1000 + (next++ % 1000); // views of one widget share the channel
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      model.send({ id, kind, ...args });
    });
  }
  model.on("change:_tick", changed);
  model.on("msg:custom", answered);
  model.on("comm_live_update", cutOrBack);
  let plotly: Promise<Plotly> | undefined;
  const source: Source = {
    get readOnly() {
      return gone;
    },
    get readOnlyBecause() {
      return gone ? GONE : "";
    },
    structure: () => structure,
    state: () => model.get("_state") as PanelState,
    figures: () => figures,
    onChange(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    request(kind, args) {
      return gone ? Promise.reject(new RequestError(GONE)) : ask(kind, args);
    },
    plotly() {
      plotly ??= source.request("plotly", {}).then(({ script }) => loadPlotly(script));
      return plotly;
    },
    dispose() {
      model.off("change:_tick", changed);
      model.off("msg:custom", answered);
      model.off("comm_live_update", cutOrBack);
      watchers.clear();
    },
  };
  return source;
}

const ARRAYS = { f4: Float32Array, u1: Uint8Array } as const;

/** Replaces {"$buffer": i, "dtype": "f4"} by the typed array in the i-th buffer; bytes are "u1". */
function withBuffers(value: unknown, buffers: DataView[]): unknown {
  if (Array.isArray(value)) return value.map((item) => withBuffers(item, buffers));
  if (value === null || typeof value !== "object") return value;
  if ("$buffer" in value) {
    const view = buffers[value.$buffer as number] as DataView;
    const Kind = ARRAYS[(value as { dtype?: keyof typeof ARRAYS }).dtype ?? "f4"];
    return new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer);
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withBuffers(item, buffers)]));
}

/** Returns plotly from its script, whatever module loader the page has. */
async function loadPlotly(script: string): Promise<Plotly> {
  // Under require.js the script would register itself there; as a module of its own it sees no `define`.
  const text = `const module = { exports: {} }, exports = module.exports, define = undefined;\n(function () {\n${script}\n}).call(globalThis);\nexport default module.exports;`;
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return ((await import(url)) as { default: Plotly }).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

export default {
  render({ model, el }: { model: AnyModel; el: HTMLElement }): () => void {
    const panel = mountPanel(el, widgetSource(model));
    return () => panel.dispose();
  },
};
