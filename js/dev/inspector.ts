/** The inspector alone, on made-up data; inspector.html says how to build it. */
import { h } from "../src/dom";
import { createInspector } from "../src/inspector/inspector";
import type { Plotly } from "../src/source";
import { Store } from "../src/store";
import { FakeSource, transformer } from "../src/testing/fixture";
import "../src/style/panel.css";

const RUN_MS = 300; // how long a made-up run takes
const query = new URLSearchParams(location.search);
if (query.has("dark")) document.body.className = "dark";
if (query.has("width")) {
  const memory = { width: Number(query.get("width")), folded: false };
  localStorage.setItem("precision-explorer.inspector", JSON.stringify(memory));
}
const source = new FakeSource(transformer(Number(query.get("blocks") ?? 6)), query.has("report"), RUN_MS);
source.charts = (globalThis as unknown as { Plotly: Plotly }).Plotly;
const store = new Store(source);
const host = h("div", { class: "pe-inspector" });
const main = h("div", { class: "pe-main" }, h("div", { class: "pe-graph" }), host);
document.getElementById("panel")?.append(h("div", { class: "pe-panel" }, main));
// For the console of the browser, and for scripts that take pictures.
Object.assign(globalThis, { inspector: createInspector(host, store), store, source });
