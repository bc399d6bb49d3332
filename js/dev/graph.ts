/** A page with the graph alone: the fixture, or a structure from ?data=…, in the theme of ?dark=1. */
import { decodeFrame } from "../src/frame";
import { createGraph } from "../src/graph/graph";
import type { Structure } from "../src/protocol";
import { Store } from "../src/store";
import "../src/style/panel.css";
import { FakeSource, transformer } from "../src/testing/fixture";

interface Payload {
  structure: Structure;
  figures_base64?: string;
}

async function start(): Promise<void> {
  const asked = new URLSearchParams(location.search);
  document.body.dataset.jpThemeLight = asked.get("dark") ? "false" : "true";
  const data = asked.get("data");
  const made = data ? ((await (await fetch(data)).json()) as Payload) : null;
  const structure = made?.structure ?? transformer(Number(asked.get("blocks") ?? 8));
  const source = new FakeSource(structure, false, Number(asked.get("delay") ?? 400));
  if (made?.figures_base64) {
    const bytes = Uint8Array.from(atob(made.figures_base64), (letter) => letter.charCodeAt(0));
    const figures = decodeFrame(new DataView(bytes.buffer));
    source.figures = () => ({ ...figures, revision: 0, errorsRevision: source.state().revision });
  }
  const panel = document.createElement("div");
  panel.className = "pe-panel";
  const host = document.createElement("div");
  host.className = "pe-graph";
  panel.append(host);
  document.body.append(panel);
  const began = performance.now();
  const store = new Store(source);
  const graph = createGraph(host, store);
  const made_ms = performance.now() - began;
  requestAnimationFrame(() => {
    setTimeout(() =>
      Object.assign(globalThis, { pe: { store, graph, made_ms, painted_ms: performance.now() - began } }),
    );
  });
}

void start();
