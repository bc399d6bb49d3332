/** The development page: chooses what is shown, and mounts the panel as a host does. */
import { pageSource, readScene, type Scene } from "../src/hosts/page";
import { mountPanel, type Panel } from "../src/panel";
import type { Plotly, Source } from "../src/source";
import "../src/style/panel.css";
import { FakeSource, transformer } from "../src/testing/fixture";

const MADE_UP: Record<string, () => Source> = {
  "fixture: 6 blocks": () => new FakeSource(transformer(6), false, 400),
  "fixture, searched": () => searched(6),
  "fixture, searched, 420 blocks": () => searched(420),
  "fixture, searched, read-only": () => searched(6, true),
  "fixture: 120 blocks": () => new FakeSource(transformer(120), false, 400),
  "fixture, read-only": () => new FakeSource(transformer(6), true),
};
function searched(blocks: number, readOnly = false): Source {
  const source = new FakeSource(transformer(blocks), readOnly, 400);
  source.findFront();
  return source;
}

const [data, theme, width] = ["data", "theme", "width"].map((id) => document.getElementById(id) as HTMLSelectElement);
const host = document.getElementById("panel") as HTMLElement;
let panel: Panel | undefined;

/** Fills up a payload of structure and figures alone: the state is the fixture's. */
function whole(read: Partial<Scene> & { figures_base64?: string }): Scene {
  const { structure, figures = read.figures_base64 } = read;
  if (!structure || !figures) throw new Error("A payload needs at least structure and figures.");
  const state = { ...new FakeSource(structure, true).state(), ...read.state };
  return { structure, figures, state, details: read.details ?? [], values: read.values ?? {} };
}

async function show(name: string): Promise<void> {
  const payload = async (): Promise<Source> =>
    pageSource(whole(await readScene(await (await fetch(`payloads/${encodeURIComponent(name)}`)).text())));
  const source = await (MADE_UP[name] ?? payload)();
  if (source instanceof FakeSource) source.charts = (globalThis as unknown as { Plotly: Plotly }).Plotly;
  panel?.dispose();
  panel = mountPanel(host, source);
  Object.assign(globalThis, { panel }); // for the console
}

const payloads = (await (await fetch("payloads")).json()) as string[];
data?.append(...[...payloads, ...Object.keys(MADE_UP)].map((name) => new Option(name)));
const asked = new URLSearchParams(location.search); // ?data=…&theme=dark&width=500, for screenshots
if (data && asked.get("data")) data.value = asked.get("data") as string;
if (theme) theme.value = String(asked.get("theme") !== "dark");
if (width) width.value = asked.get("width") ?? "";

const dress = (): void => {
  document.body.dataset.jpThemeLight = theme?.value;
  host.style.width = width?.value ? `${width.value}px` : "";
};
theme?.addEventListener("change", dress);
width?.addEventListener("change", dress);
data?.addEventListener("change", () => void show(data.value));
dress();
if (data) await show(data.value);
