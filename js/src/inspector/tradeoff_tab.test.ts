// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { h } from "../dom";
import { Store } from "../store";
import { FakeSource, transformer } from "../testing/fixture";
import { type Drawing, PlotlyRecorder } from "../testing/plotly";
import { createInspector } from "./inspector";
import { axesOf, originOf } from "./tradeoff_tab";

let source: FakeSource;
let store: Store;
let host: HTMLElement;
let inspector: { dispose(): void };
let plotly: PlotlyRecorder;

function mount(delay = 0): void {
  source = new FakeSource(transformer(1), false, delay);
  plotly = new PlotlyRecorder();
  source.charts = plotly;
  store = new Store(source);
  host = h("div", { class: "pe-inspector" });
  document.body.append(host);
  inspector = createInspector(host, store);
}
const settle = async (ms = 400): Promise<void> => {
  await vi.advanceTimersByTimeAsync(ms);
};
const $ = <T extends HTMLElement>(selector: string): T => {
  const found = host.querySelector<T>(selector);
  if (!found) throw new Error(`nothing is ${selector}`);
  return found;
};
const all = (selector: string): HTMLElement[] => [...host.querySelectorAll<HTMLElement>(selector)];
const press = (text: string): void => {
  const found = all("button").find((button) => button.textContent?.startsWith(text) && !button.closest("[hidden]"));
  if (!found) throw new Error(`no button says ${text}`);
  found.click();
};
const asked = (kind: string): unknown[] => source.asked.filter((one) => one.kind === kind).map((one) => one.ask);

beforeEach(() => {
  vi.useFakeTimers();
  localStorage.clear();
  mount();
});
afterEach(() => {
  inspector.dispose();
  store.dispose();
  source.dispose();
  host.remove();
  vi.useRealTimers();
});

describe("the trade-off", () => {
  it("lists every plan, marks the current one, and goes back by button and by point", async () => {
    await store.edit({ op: "fix", finding: "overflow" });
    await settle();
    store.setTab("tradeoff");
    await settle();
    expect(all(".pe-i-plans tbody tr").map((row) => row.getAttribute("aria-current"))).toEqual([null, "true"]);
    press("Go back");
    expect(asked("edit").at(-1)).toEqual({ edit: { op: "goto", tried: 0 } });
    await settle();
    plotly.click("tried 1");
    expect(asked("edit").at(-1)).toEqual({ edit: { op: "goto", tried: 1 } });
    const count = asked("edit").length;
    await settle();
    plotly.click("tried 1"); // already there
    expect(asked("edit")).toHaveLength(count);
  });

  it("puts what is not finite on a shelf, and draws shares where no latency is known", async () => {
    source.state().tried[0] = {
      ...(source.state().tried[0] as never as object),
      sqnr_db: "-inf",
      latency_us: null,
      metric: null,
      latency_provenance: "",
    } as never;
    store.setTab("tradeoff");
    await settle();
    const { layout } = plotly.drawn.at(-1) as {
      layout: Record<string, { ticktext: string[]; title: { text: string } }>;
    };
    expect(layout.yaxis?.ticktext).toContain("not finite");
    expect(layout.xaxis?.title.text).toBe("share of layers in the low format");
    expect(all(".pe-i-plans th").map((one) => one.textContent)).not.toContain("latency");
  });

  interface Trace {
    name: string;
    x: number[];
    y: number[];
    customdata: string[];
    hovertext: string[];
    opacity: number;
  }
  const last = (): Drawing => plotly.drawn.at(-1) as Drawing;
  const trace = (name: string): Trace => (last().data as unknown as Trace[]).find((one) => one.name === name) as Trace;
  const axisTitle = (axis: string): string => (last().layout[axis] as { title: { text: string } }).title.text;

  it("searches, tells how far it is, and stops; a later search goes on", async () => {
    inspector.dispose();
    mount(1000);
    store.setTab("tradeoff");
    expect(host.textContent).toContain("Finds the fastest plan for every error");
    press("Find the best plans");
    await settle(3100);
    expect(asked("search")).toHaveLength(1);
    const panel = $(".pe-i-search");
    expect(panel.textContent).toContain("measuring what rounding costs");
    expect(panel.textContent).toContain("about 4 s left");
    expect($<HTMLProgressElement>(".pe-i-search progress").value).toBeCloseTo(0.3);
    const stop = all(".pe-i-search button").find((one) => one.textContent === "Stop");
    await settle(1000);
    expect(trace("measured").x.length).toBeGreaterThan(5); // what is found already
    expect(stop?.isConnected).toBe(true); // the button under the pointer stays the same
    stop?.click();
    await settle();
    expect(asked("stop_search")).toHaveLength(1);
    expect(panel.textContent).toContain("Stopped before it was done.");
    press("Go on searching");
    await settle(20_000);
    expect(source.state().search.state).toBe("done");
    expect(store.notice?.text).toBe("x.search()");
  });

  it("says why a search failed, and tries again", async () => {
    source.findFront({
      points: [],
      budget: null,
      state: "failed",
      error: { what: "No device is chosen.", why: "Time cannot be weighed.", fix: "Choose a GPU." },
    });
    store.setTab("tradeoff");
    expect($(".pe-i-search [role=alert]").textContent).toBe(
      "No device is chosen.Time cannot be weighed. Choose a GPU.",
    );
    press("Try again");
    expect(asked("search")).toHaveLength(1);
    await settle();
  });

  it("draws the front, says how its figures came to be, and takes a point by click and by button", async () => {
    source.findFront();
    store.setTab("tradeoff");
    await settle();
    expect(trace("measured").x.length).toBeLessThan(trace("predicted").x.length);
    expect(axisTitle("xaxis")).toBe("latency, predicted");
    expect(axisTitle("yaxis")).toBe("output error, relative L2, emulated");
    const hover = trace("predicted").hovertext[3] as string;
    expect(hover).toContain("not run yet");
    expect(trace("measured").hovertext[1]).toMatch(/accuracy .*%/);
    expect(trace("measured").hovertext[1]).toMatch(/dB\), as its run gave it/);
    expect($(".pe-i-search").textContent).toContain("180 of 212 tensors measured alone");
    plotly.click("front 2");
    expect(asked("take")).toEqual([{ point: 2 }]);
    await settle();
    expect(store.state.search.points[2]?.current).toBe(true);
    plotly.click("front 2"); // it is set
    expect(asked("take")).toHaveLength(1);
    press("Take");
    expect(asked("take")[1]).toEqual({ point: 0 });
    await settle();
    const rows = all('[aria-label="Plans of the front"] tbody tr').map((row) => row.textContent ?? "");
    expect(rows).toHaveLength(14);
    expect(rows[0]).toContain("current");
    expect(rows[3]).toContain("≈");
  });

  it.each([
    ["predicted (roofline, H100-SXM), batch of 32", "predicted, H100-SXM"],
    ["measured on NVIDIA H200, TensorRT 11.1, time on the GPU", "measured, NVIDIA H200"],
    ["emulated: fp16 and int8 storage rounding (scales: minmax), fp32 accumulation", "emulated"],
    ["", ""],
  ])("names the origin of %s on an axis by its kind and device", (provenance, origin) => {
    expect(originOf(provenance)).toBe(origin);
  });

  it("tells origins apart by kind and device alone", () => {
    source.findFront({ latency_provenance: "predicted (roofline, H100-SXM), batch of 32" });
    const { search, tried } = source.state();
    const errors = ["emulated: fp16 storage rounding", "emulated: int8 storage rounding"];
    const plans = errors.map((error_provenance) => ({
      ...(tried[0] as (typeof tried)[0]),
      error_provenance,
      latency_provenance: "predicted (roofline, H100-SXM), batch of 8",
    }));
    const titles = axesOf(plans, search, { x: "latency", y: "error" });
    expect(titles.xTitle).toBe("latency, predicted, H100-SXM");
    expect(titles.yTitle).toBe("output error, relative L2, emulated");
    const other = plans.map((plan) => ({ ...plan, latency_provenance: "measured on NVIDIA H200, TensorRT 11.1" }));
    expect(axesOf(other, search, { x: "latency", y: "error" }).xTitle).toBe("latency, of several origins");
    const untimed = { ...search, points: search.points.map((point) => ({ ...point, latency_us: null })) };
    expect(axesOf(other, untimed, { x: "latency", y: "error" }).xTitle).toBe("latency, measured, NVIDIA H200");
  });

  it("draws the front over shares where no latency is known", async () => {
    source.findFront();
    const { search, tried } = source.state();
    for (const plan of [...search.points, ...tried]) Object.assign(plan, { latency_us: null });
    store.setTab("tradeoff");
    await settle();
    expect(axisTitle("xaxis")).toBe("share of layers in the low format");
    expect(Math.max(...trace("predicted").x)).toBeLessThanOrEqual(1);
  });

  it("pales a front that does not fit any more, says why, and offers to search again", async () => {
    source.findFront({ stale: "the format changed" });
    store.setTab("tradeoff");
    await settle();
    expect($(".pe-i-search").textContent).toContain("The front does not fit any more: the format changed.");
    expect(trace("measured").opacity).toBeLessThan(0.5);
    plotly.click("front 2");
    expect(asked("take")).toEqual([]);
    expect(store.notice?.text).toContain("Search again");
    press("Search again");
    expect(asked("search")).toHaveLength(1);
    await settle();
  });

  it("follows a budget that is dragged, some times a second", async () => {
    source.findFront();
    store.setTab("tradeoff");
    await settle();
    const answer = await source.request("budget", { error: 4e-4 });
    const before = plotly.drawn.length;
    for (let step = 0; step < 10; step++) {
      store.setPreview({ ...answer, names: source.figures().formats, budget: 4e-4 + step * 1e-6, taken: false });
      await settle(5);
    }
    await settle();
    expect(plotly.drawn.length - before).toBe(1);
    expect(trace("preview").x).toEqual([answer.latency_us]);
    store.setPreview(null);
    await settle();
    expect(trace("preview")).toBeUndefined();
  });
});
