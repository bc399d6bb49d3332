// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Structure } from "../protocol";
import { Store } from "../store";
import { stubCanvas, type Written } from "../testing/column";
import { FakeSource, transformer } from "../testing/fixture";
import { createGraph, type Graph } from "./graph";

const HOSTILE = [
  '<img src=x onerror="globalThis.broken = 1">',
  "\"';--\n\r\t\u0000",
  "😀🇺🇳\u202eevil\u2028",
  "x/".repeat(5000),
  "",
  "__proto__",
  "constructor",
];

let written: Written;
let host: HTMLElement;
let observed: Set<unknown>;

beforeEach(() => {
  written = stubCanvas();
  observed = new Set();
  vi.stubGlobal(
    "ResizeObserver",
    class {
      observe(): void {
        observed.add(this);
      }
      disconnect(): void {
        observed.delete(this);
      }
    },
  );
  vi.stubGlobal("matchMedia", () => ({ matches: true, addEventListener: vi.fn(), removeEventListener: vi.fn() }));
  // jsdom lays nothing out.
  Object.defineProperty(HTMLElement.prototype, "clientWidth", { configurable: true, value: 900 });
  Object.defineProperty(HTMLElement.prototype, "clientHeight", { configurable: true, value: 600 });
  HTMLCanvasElement.prototype.toDataURL = () => "data:image/png;base64,AAAA";
  host = document.createElement("div");
  document.body.append(host);
});
afterEach(() => {
  written.restore();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
  vi.useRealTimers();
  document.body.replaceChildren();
  Reflect.deleteProperty(HTMLElement.prototype, "clientWidth");
  Reflect.deleteProperty(HTMLElement.prototype, "clientHeight");
});

function start(
  structure: Structure = transformer(2),
  readOnly = false,
): { graph: Graph; store: Store; source: FakeSource } {
  const source = new FakeSource(structure, readOnly);
  const store = new Store(source);
  return { graph: createGraph(host, store), store, source };
}

const frame = (): Promise<void> =>
  new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve())));
const list = (): HTMLElement => host.querySelector('[role="listbox"][tabindex="0"]') as HTMLElement;
const press = (target: Element, key: string, more: KeyboardEventInit = {}): KeyboardEvent => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more });
  target.dispatchEvent(event);
  return event;
};

describe("graph", () => {
  it("draws, and says to a screen reader what it draws", async () => {
    const { graph, store } = start();
    store.reveal(2);
    await frame();
    await vi.waitFor(() => expect(list().getAttribute("aria-activedescendant")).not.toBeNull());
    expect(written.texts).toContain("Pow");
    const active = document.getElementById(list().getAttribute("aria-activedescendant") as string);
    expect(active?.textContent).toBe("Pow blocks/0/norm1/Pow_2, fp16, accumulated error inf or NaN");
    expect(active?.getAttribute("aria-selected")).toBe("true");
    expect(list().children.length).toBeLessThan(40);
    graph.dispose();
  });

  it("announces what a key has done, and keeps the key from the notebook", async () => {
    const { graph, store } = start();
    store.reveal(2);
    const above = vi.fn();
    document.body.addEventListener("keydown", above);
    const event = press(list(), " ");
    expect(event.defaultPrevented).toBe(true);
    expect(above).not.toHaveBeenCalled();
    expect(host.querySelector('[aria-live="polite"][role="status"]')?.textContent).toContain("Pow_2, fp32");
    expect(press(list(), "x").defaultPrevented).toBe(false);
    document.body.removeEventListener("keydown", above);
    graph.dispose();
  });

  it("shows a preview by its formats, under a sign, without laying anything out anew", async () => {
    const { graph, store, source } = start();
    source.findFront();
    store.setOpen(store.model.structure.groups.label.keys());
    store.reveal(1);
    await frame();
    const place = graph.rectOf(1);
    const answer = await source.request("budget", { error: 3e-4 });
    const sign = host.querySelector(".pe-graph-preview") as HTMLElement;
    expect(sign.hidden).toBe(true);
    store.setPreview({ ...answer, names: source.figures().formats, budget: 3e-4, taken: false });
    written.texts.length = 0;
    await frame();
    expect(sign.hidden).toBe(false);
    expect(sign.textContent).toContain("error ≤ 3.0e-4 (70");
    expect(sign.textContent).toContain("Esc to go back");
    expect(written.texts).toContain("fp32");
    expect(written.texts).not.toContain("70\u202fdB"); // errors are of the plan that is set
    expect(host.querySelector(".pe-graph-legend > button")?.textContent).toBe("format (preview)");
    expect(graph.rectOf(1)).toEqual(place);
    expect((host.querySelector("select") as HTMLSelectElement).value).toBe("accumulated");
    store.setPreview(null);
    await frame();
    expect(sign.hidden).toBe(true);
    expect(host.querySelector(".pe-graph-legend > button")?.textContent).toBe("accumulated error");
    graph.dispose();
  });

  it("draws nothing while nothing changes", async () => {
    const { graph } = start();
    await frame();
    await frame();
    const before = written.texts.length;
    await frame();
    await frame();
    expect(written.texts.length).toBe(before);
    graph.dispose();
  });

  it("shows the quantities that can be shown, with the reason for those that cannot", () => {
    const { graph, store } = start();
    const select = host.querySelector("select") as HTMLSelectElement;
    const off = [...select.options].filter((option) => option.disabled);
    expect(off.map((option) => option.value)).toEqual(["sensitivity", "saves", "costs"]);
    expect(off[0]?.title).toContain("search");
    select.value = "latency";
    select.dispatchEvent(new Event("change"));
    expect(store.colour).toBe("latency");
    expect(host.querySelector(".pe-graph-legend")?.textContent).toContain("share of latency");
    expect(host.querySelector(".pe-graph-legend")?.textContent).toContain("predicted");
    graph.dispose();
  });

  it("searches, walks through what it found, and jumps", () => {
    const { graph, store } = start();
    press(list(), "/");
    const input = host.querySelector("input") as HTMLInputElement;
    expect(document.activeElement).toBe(input);
    input.value = "softmax";
    input.dispatchEvent(new Event("input"));
    expect(host.querySelector(".pe-graph-count")?.textContent).toBe("1 of 2");
    press(input, "ArrowDown");
    expect(host.querySelector(".pe-graph-count")?.textContent).toBe("2 of 2");
    press(input, "Enter");
    const [found] = [...store.selection];
    expect(store.model.op(found as number)).toBe("Softmax");
    expect(document.activeElement).toBe(list());
    graph.dispose();
  });

  it("lists the keys in a dialog that keeps the focus", () => {
    const { graph } = start();
    press(list(), "?");
    const dialog = host.querySelector('[role="dialog"]') as HTMLElement;
    expect(dialog.contains(document.activeElement)).toBe(true);
    expect(press(document.activeElement as Element, "Tab").defaultPrevented).toBe(true);
    expect(dialog.contains(document.activeElement)).toBe(true);
    press(document.activeElement as Element, "Escape");
    expect((dialog.parentElement as HTMLElement).hidden).toBe(true);
    expect(document.activeElement).toBe(list());
    graph.dispose();
  });

  it("opens its menu by the keyboard, walks through it, and closes it", () => {
    const { graph, store, source } = start();
    store.reveal(2);
    press(list(), "F10", { shiftKey: true });
    const menu = host.querySelector('[role="menu"]') as HTMLElement;
    expect(menu.hidden).toBe(false);
    expect(document.activeElement?.textContent).toContain("Switch to fp32");
    press(document.activeElement as Element, "ArrowDown");
    press(document.activeElement as Element, "ArrowDown");
    expect(document.activeElement?.textContent).toContain("Keep all Pow");
    (document.activeElement as HTMLElement).click();
    expect(menu.hidden).toBe(true);
    expect(source.asked.at(-1)?.ask).toEqual({ edit: { op: "block_ops", ops: ["Pow"] } });
    expect(document.activeElement).toBe(list());
    graph.dispose();
  });

  it("sends one picture for a plan when the figures have settled, and none from a report", async () => {
    vi.useFakeTimers();
    const { graph, source, store } = start();
    await vi.advanceTimersByTimeAsync(5000);
    const pictures = (): number => source.asked.filter(({ kind }) => kind === "picture").length;
    expect(pictures()).toBe(1);
    store.select([3]);
    await vi.advanceTimersByTimeAsync(5000);
    expect(pictures()).toBe(1);
    void store.edit({ op: "toggle", layers: [3] });
    await vi.advanceTimersByTimeAsync(5000);
    expect(pictures()).toBe(2);
    expect(graph.picture()).toMatch(/^data:image\/png/);
    graph.dispose();
    const report = start(transformer(1), true);
    await vi.advanceTimersByTimeAsync(5000);
    expect(report.source.asked).toEqual([]);
    report.graph.dispose();
  });

  it("shows names of any kind as text, and runs nothing in them", async () => {
    const structure = transformer(1);
    structure.layers.id = structure.layers.id.map((_, at) => `${HOSTILE[at % HOSTILE.length]}${at}`);
    structure.ops[0] = HOSTILE[0] as string;
    structure.groups.label = structure.groups.label.map((_, at) => HOSTILE[at % HOSTILE.length] as string);
    structure.groups.path = structure.groups.label.map((label, at) => (at === 0 ? "" : `${label}/${at}`));
    structure.tensors.name = structure.tensors.name.map((_, at) => HOSTILE[at % HOSTILE.length] as string);
    const { graph, store } = start(structure);
    for (let layer = 0; layer < store.model.layers; layer++) store.reveal(layer);
    press(list(), "F10", { shiftKey: true });
    const input = host.querySelector("input") as HTMLInputElement;
    input.value = "img";
    input.dispatchEvent(new Event("input"));
    await frame();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(host.querySelector("img, script")).toBeNull();
    expect((globalThis as { broken?: number }).broken).toBeUndefined();
    expect(written.texts.every((text) => text.length < 300)).toBe(true);
    graph.dispose();
  });

  it("leaves nothing behind", async () => {
    const counts = new Map<string, number>();
    const count = (step: number) => (type: unknown, _listener: unknown, options?: unknown) => {
      const signal = (options as AddEventListenerOptions | undefined)?.signal;
      counts.set(String(type), (counts.get(String(type)) ?? 0) + step);
      signal?.addEventListener("abort", () => counts.set(String(type), (counts.get(String(type)) ?? 0) - step));
    };
    const spies = [window, document].flatMap((target) => [
      vi.spyOn(target, "addEventListener").mockImplementation(count(1) as never),
      vi.spyOn(target, "removeEventListener").mockImplementation(count(-1) as never),
    ]);
    const { graph, store } = start();
    const emitted = vi.spyOn(store.source as FakeSource, "figures");
    press(list(), "F10", { shiftKey: true });
    graph.dispose();
    expect([...counts].filter(([, left]) => left !== 0)).toEqual([]);
    expect(observed.size).toBe(0);
    expect(host.childElementCount).toBe(0);
    const drawn = written.texts.length;
    emitted.mockClear();
    for (const topic of ["data", "selection", "groups", "hover", "colour"] as const) store.emit(topic);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(emitted).not.toHaveBeenCalled();
    expect(written.texts.length).toBe(drawn);
    for (const spy of spies) spy.mockRestore();
  });
});
