// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Figures, LayerDetails, LayerValues } from "../protocol";
import { RequestError } from "../source";
import { FakeSource, transformer } from "../testing/fixture";
import { mountPage, pageSource, readScene, type Scene, start } from "./page";

// What the page adds is tested here; the parts of the panel have tests of their own, and jsdom has no canvas.
vi.mock("../graph/graph", () => ({
  createGraph: (host: HTMLElement) => {
    const canvas = document.createElement("canvas");
    canvas.toDataURL = () => "data:image/png;base64,AAAA";
    host.append(canvas);
    return { dispose: () => canvas.remove() };
  },
}));

const TYPES = { Uint8Array: "u1", Uint16Array: "u2", Float32Array: "f4", Float64Array: "f8" } as const;

/** Returns figures as explorer.scene writes them. */
function encodeFrame(figures: Figures): string {
  const columns: object[] = [];
  const facts: Record<string, unknown> = {};
  const parts: [number, Uint8Array][] = [];
  let offset = 0;
  for (const [name, value] of Object.entries(figures)) {
    if (!ArrayBuffer.isView(value)) {
      facts[name] = value;
      continue;
    }
    const array = value as Uint8Array;
    const dtype = TYPES[array.constructor.name as keyof typeof TYPES];
    columns.push({ name, dtype, offset, length: array.length });
    parts.push([offset, new Uint8Array(array.buffer, array.byteOffset, array.byteLength)]);
    offset = Math.ceil((offset + array.byteLength) / 8) * 8;
  }
  const header = new TextEncoder().encode(JSON.stringify({ ...facts, columns }));
  const begin = Math.ceil((4 + header.length) / 8) * 8;
  const bytes = new Uint8Array(begin + offset);
  new DataView(bytes.buffer).setUint32(0, header.length, true);
  bytes.set(header, 4);
  for (const [at, part] of parts) bytes.set(part, begin + at);
  return btoa(String.fromCharCode(...bytes));
}

const DETAILS = { layer: 1, name: "</script>", attributes: [] } as unknown as LayerDetails;
const VALUES = { layer: 1, output: "y", provenance: "measured" } as unknown as LayerValues;

function makeScene(): Scene {
  const fake = new FakeSource(transformer(1), true);
  return {
    structure: fake.structure(),
    state: fake.state(),
    figures: encodeFrame(fake.figures()),
    details: [null, DETAILS],
    values: { 1: VALUES },
  };
}

let place: HTMLElement;
beforeEach(() => {
  vi.stubGlobal("matchMedia", () => ({ matches: true, addEventListener() {}, removeEventListener() {} }));
  place = document.createElement("div");
  place.id = "pe-root";
  document.body.replaceChildren(place);
});
afterEach(() => vi.unstubAllGlobals());

describe("the scene", () => {
  it("is read as it is, and packed", async () => {
    const text = JSON.stringify({ structure: { name: "層 </script>" } });
    const stream = new Response(text).body?.pipeThrough(new CompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const packed = JSON.stringify({ gzip: btoa(String.fromCharCode(...bytes)) });
    expect(await readScene(text)).toEqual(JSON.parse(text));
    expect(await readScene(packed)).toEqual(JSON.parse(text));
  });

  it("gives structure, state and figures", () => {
    const scene = makeScene();
    const source = pageSource(scene);
    expect(source.structure()).toBe(scene.structure);
    expect(source.state()).toBe(scene.state);
    expect(source.figures()).toEqual(new FakeSource(transformer(1), true).figures());
    expect(source.readOnly).toBe(true);
    expect(source.readOnlyBecause).toContain("report");
  });
});

describe("the inspector's tabs", () => {
  const tabs = (): string[] => [...place.querySelectorAll("[role=tab]")].map((tab) => tab.textContent ?? "");

  it("leave out what the report has in another form, and what there is nothing of", () => {
    const scene = makeScene();
    scene.state.findings = [];
    mountPage(place, scene).dispose();
    const panel = mountPage(place, scene);
    expect(tabs()).toEqual(["Layer"]);
    panel.dispose();
    const searched = new FakeSource(transformer(1), true);
    searched.findFront();
    const front = mountPage(place, { ...scene, state: { ...scene.state, search: searched.state().search } });
    expect(tabs()).toEqual(["Layer", "Trade-off"]);
    expect(place.querySelector<HTMLElement>(".pe-budget")?.hidden).toBe(true);
    front.store.setTab("tradeoff");
    const seen = [...place.querySelectorAll(".pe-inspector button")].filter((button) => !button.closest("[hidden]"));
    const words = seen.map((button) => button.textContent ?? "");
    expect(words.filter((text) => /^(Take|Search|Find the|Stop|Try)/.test(text))).toEqual([]);
    front.dispose();
    const tried = scene.state.tried[0];
    if (tried) scene.state.tried = [tried, { ...tried, index: 1 }];
    scene.state.findings = new FakeSource(transformer(1)).state().findings;
    const other = mountPage(place, scene);
    expect(tabs().map((text) => text.replace(/\d/, ""))).toEqual(["Layer", "Trade-off", "Findings"]);
    other.dispose();
  });
});

describe("requests", () => {
  it("are answered from what the page carries", async () => {
    const source = pageSource(makeScene());
    expect(await source.request("layer", { layer: 1 })).toBe(DETAILS);
    expect(await source.request("values", { layer: 1, output: 0 })).toBe(VALUES);
    expect(await source.request("picture", { png: "data:," })).toEqual({});
  });

  it("are refused in words where the page carries nothing", async () => {
    const source = pageSource(makeScene());
    for (const asked of [
      source.request("layer", { layer: 0 }),
      source.request("values", { layer: 5, output: 0 }),
      source.request("edit", { edit: { op: "undo" } }),
      source.request("export", { what: "onnx", path: "x.onnx" }),
      source.request("run", {}),
    ]) {
      const error = await asked.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(RequestError);
      expect((error as RequestError).what).toMatch(/report/);
      expect((error as RequestError).fix).toMatch(/explorer\.open/);
    }
  });

  it("take plotly from the page, and say so when it is not there", async () => {
    const source = pageSource(makeScene());
    await expect(source.plotly()).rejects.toThrow("did not load");
    const plotly = {};
    vi.stubGlobal("Plotly", plotly);
    expect(await source.plotly()).toBe(plotly);
  });
});

describe("the page", () => {
  it("fills the window and comes back", () => {
    const panel = mountPage(place, makeScene());
    const button = place.querySelector<HTMLButtonElement>(".pe-full-button");
    button?.click();
    expect(place.classList.contains("pe-full")).toBe(true);
    expect(button?.textContent).toBe("Back to the report");
    place.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    expect(place.classList.contains("pe-full")).toBe(false);
    panel.dispose();
  });

  it("shows the layer of a chart that was clicked", () => {
    const panel = mountPage(place, makeScene());
    document.dispatchEvent(new CustomEvent("open-layer", { detail: 4 }));
    expect([...panel.store.selection]).toEqual([4]);
    panel.dispose();
  });

  it("puts a picture in the panel's place for paper", () => {
    const panel = mountPage(place, makeScene());
    const picture = place.querySelector("img") as HTMLImageElement;
    expect(picture.hidden).toBe(true);
    dispatchEvent(new Event("beforeprint"));
    expect(picture.hidden).toBe(false);
    expect(picture.src).toMatch(/^data:image\/png/);
    panel.dispose();
  });

  it("leaves nothing behind", () => {
    const panel = mountPage(place, makeScene());
    place.querySelector<HTMLButtonElement>(".pe-full-button")?.click();
    panel.dispose();
    expect(place.childElementCount).toBe(0);
    expect(place.className).toBe("");
    expect(document.documentElement.className).toBe("");
    document.dispatchEvent(new CustomEvent("open-layer", { detail: 4 }));
    expect(panel.store.selection.size).toBe(0);
  });

  it("says in words why the graph cannot be shown", async () => {
    const data = document.createElement("script");
    data.type = "application/json";
    data.id = "pe-scene";
    data.textContent = "{broken";
    document.body.append(data);
    await start();
    expect(place.querySelector("[role=alert]")?.textContent).toContain("cannot be shown");
  });
});
