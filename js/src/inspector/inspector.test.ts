// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { h } from "../dom";
import type { Requests, Structure } from "../protocol";
import { RequestError } from "../source";
import { Store, type Tab } from "../store";
import { FakeSource, transformer } from "../testing/fixture";
import { PlotlyRecorder } from "../testing/plotly";
import { layerDetails } from "../testing/replies";
import { createInspector } from "./inspector";

let source: FakeSource;
let store: Store;
let host: HTMLElement;
let inspector: { dispose(): void };
let plotly: PlotlyRecorder;

function mount(made: Structure = transformer(1), readOnly = false): void {
  source = new FakeSource(made, readOnly);
  plotly = new PlotlyRecorder();
  source.charts = plotly;
  store = new Store(source);
  host = h("div", { class: "pe-inspector" });
  document.body.append(host);
  inspector = createInspector(host, store);
}
/** Waits for requests that are made after a pause, and for what their answers draw. */
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
const rowOf = (layer: number): HTMLElement => $(`.pe-i-tr[data-layer="${layer}"]:not([hidden])`);
const shown = (): number[] =>
  all(".pe-i-tr:not([hidden])")
    .sort((a, b) => Number(a.ariaRowIndex ?? a.getAttribute("aria-rowindex")) - Number(b.getAttribute("aria-rowindex")))
    .map((row) => Number(row.dataset.layer));

beforeEach(() => {
  vi.useFakeTimers();
  localStorage.clear();
  mount();
});
afterEach(() => {
  inspector.dispose();
  store.dispose();
  host.remove();
  vi.useRealTimers();
});

describe("tabs", () => {
  it("move with the arrows, and one panel is up", () => {
    const tabs = all('[role="tab"]');
    tabs[0]?.focus();
    tabs[0]?.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
    expect(store.tab).toBe("export");
    expect(document.activeElement).toBe(tabs[4]);
    expect(tabs.map((tab) => tab.getAttribute("aria-selected"))).toEqual(["false", "false", "false", "false", "true"]);
    expect(all('[role="tabpanel"]:not([hidden])')).toHaveLength(1);
  });
});

describe("the layer", () => {
  it("shows figures in words, asks for details once and for values after a pause", async () => {
    store.select([2]);
    expect($(".pe-i-errors").textContent).toContain("not finite");
    expect($(".pe-i-losses").textContent).toMatch(/100.%overflow become infinite in fp16/);
    expect(host.textContent).toContain("64.1× the largest fp16 value, 65,504");
    expect(asked("layer")).toEqual([]);
    await settle();
    expect(asked("values")).toEqual([{ layer: 2, output: 0 }]);
    expect(plotly.drawn).toHaveLength(2);
    expect(plotly.drawn[0]?.config).toMatchObject({ displaylogo: false, showSendToCloud: false });
    store.select([3]);
    await settle();
    store.select([2]);
    await settle();
    expect(asked("layer")).toEqual([{ layer: 2 }, { layer: 3 }]);
  });

  it("tells the scales of a model that came quantised", async () => {
    const made = store.model.structure;
    const weighted = made.layers.id.findIndex((_, layer) => layerDetails(made, layer).weights.length > 0);
    store.select([weighted]);
    await settle();
    const words = host.textContent ?? "";
    expect(words).toContain("Quantised in the source model");
    expect(words).toMatch(/codesint8scale0\.001 … 0\.02, one for each of 8 channels, axis 0zero point0/);
    expect(words).toMatch(/codesuint8scale0\.5zero point128/);
  });

  it("asks for nothing while one walks over layers", async () => {
    for (const layer of [1, 2, 3, 4]) {
      store.select([layer]);
      await settle(20);
    }
    await settle();
    expect(asked("values")).toEqual([{ layer: 4, output: 0 }]);
    expect(asked("layer")).toEqual([{ layer: 4 }]);
  });

  it("draws only scatter and bars, with non-finite values at the edge", async () => {
    store.select([2]);
    await settle();
    expect(new Set(plotly.drawn.flatMap((one) => one.data.map((trace) => trace.type)))).toEqual(
      new Set(["bar", "scatter"]),
    );
    expect(plotly.drawn[1]?.layout.yaxis).toMatchObject({ ticktext: expect.arrayContaining(["+∞"]) });
    expect(plotly.drawn[0]?.layout.shapes).toHaveLength(4); // the bands
  });

  it("greys old figures after an edit, and asks for new values when the run is done", async () => {
    store.select([9]);
    await settle();
    press("Block");
    await vi.advanceTimersByTimeAsync(0);
    expect(asked("edit")).toEqual([{ edit: { op: "block", layers: [9] } }]);
    expect($(".pe-i-header").textContent).toContain("Allow");
    await settle();
    expect(host.querySelector(".pe-i-stale")).toBeNull();
    expect(asked("values")).toHaveLength(2);
  });

  it("toggles by its badge and keeps the keyboard there", async () => {
    store.select([9]);
    const badge = $<HTMLButtonElement>("button.pe-i-badge");
    badge.focus();
    badge.click();
    expect($(".pe-i-badge").textContent).toBe("fp32"); // at once, before Python has answered
    expect((document.activeElement as HTMLElement).dataset.key).toBe("badge");
    await settle();
  });

  it("shows refusals in place", async () => {
    vi.spyOn(source, "request").mockRejectedValue(new RequestError("No values.", "It has none.", "Choose another."));
    store.select([2]);
    await settle();
    const refusals = all(".pe-i-refusal").map((one) => one.textContent);
    expect(refusals).toEqual(["No values.It has none.Choose another.", "No values.It has none.Choose another."]);
  });

  it("drops an answer that came too late", async () => {
    const answers: ((value: Requests["values"][1]) => void)[] = [];
    const ask = source.request.bind(source);
    vi.spyOn(source, "request").mockImplementation((kind, args) =>
      kind === "values" ? new Promise((resolve) => answers.push(resolve as never)) : ask(kind, args),
    );
    store.select([2]);
    await settle();
    store.select([9]);
    await settle();
    const [late, now] = await Promise.all([
      ask("values", { layer: 2, output: 0 }),
      ask("values", { layer: 9, output: 0 }),
    ]);
    answers[1]?.(now);
    await settle();
    const drawn = plotly.drawn.length;
    answers[0]?.(late);
    await settle();
    expect(plotly.drawn.length).toBe(drawn);
  });

  it("shows the histogram alone where that is all there is, and lets one choose among several outputs", async () => {
    const ask = source.request.bind(source);
    vi.spyOn(source, "request").mockImplementation(async (kind, args) => {
      const answer = await ask(kind, args);
      if (kind !== "values") return answer;
      const { output } = args as { output: number };
      const { histogram, ...rest } = answer as Requests["values"][1];
      const exact = { ...histogram, plan: null, plan_zeros: null, plan_nonfinite: null };
      const outputs = ["left", "right"];
      return { ...rest, histogram: exact, scatter: null, outputs, output: outputs[output] } as never;
    });
    store.select([2]);
    await settle();
    expect(plotly.drawn).toHaveLength(1);
    expect($(".pe-i-legend").textContent).toBe("fp32");
    const select = $<HTMLSelectElement>(".pe-i-values select");
    select.selectedIndex = 1;
    select.dispatchEvent(new Event("change"));
    await settle();
    expect(asked("values").at(-1)).toEqual({ layer: 2, output: 1 });
    expect($<HTMLSelectElement>(".pe-i-values select").value).toBe("right");
  });

  it("says when it was overruled, and jumps along its tensors", async () => {
    const figures = source.figures();
    figures.format[9] = 1;
    store.select([9]);
    expect($(".pe-i-overruled").textContent).toContain("Asked for fp16, runs in fp32");
    await settle();
    $(".pe-i-tensors .pe-i-link").click();
    expect(store.focus).toBe(7); // the Mul that makes its input
    expect(store.open.size).toBeGreaterThan(1);
  });

  it("says what switching it would cost and save, and runs it without setting it", async () => {
    store.select([9]);
    expect(host.textContent).toContain("once you search for the best plans");
    source.findFront();
    const would = (): string => ($(".pe-i-would").textContent ?? "").replaceAll("\u202f", " ");
    expect(would()).toBe("It would take 2.3e-7 off the output error. It would take 2 µs longer, casts included.");
    expect($(".pe-i-layer").textContent).toContain("error predicted: noise model of 212 measured tensors");
    await store.edit({ op: "toggle", layers: [9] });
    await settle();
    expect(would()).toBe("It would add 2.3e-7 to the output error. It would save 2 µs, casts included.");
    press("What if");
    expect(asked("trial")).toEqual([{ edit: { op: "toggle", layers: [9] } }]);
    await settle();
    expect(all(".pe-i-outcome tbody tr")).toHaveLength(3);
    store.select([10]);
    expect(all(".pe-i-outcome")).toHaveLength(0);
    store.select([9]);
    expect(all(".pe-i-outcome")).toHaveLength(1); // nothing has changed since
    store.select([2]); // it breaks
    expect(would()).toContain("It would keep the outputs finite.");
  });

  it("sums up several layers, and edits them together", async () => {
    store.select([2, 5, 9]);
    expect($("h2").textContent).toBe("3 layers");
    expect(all(".pe-i-worst li")).toHaveLength(3);
    press("Block");
    expect(asked("edit")).toEqual([{ edit: { op: "block", layers: [2, 5, 9] } }]);
    await settle();
    press("Allow");
    expect(asked("edit")[1]).toEqual({ edit: { op: "allow", layers: [2, 5, 9] } });
  });

  it("shows the model when nothing is selected, worst layers as links", () => {
    expect($("h2").textContent).toBe("transformer of 1 blocks");
    $(".pe-i-worst .pe-i-link").click();
    expect(store.focus).toBe(2);
  });
});

describe("the table", () => {
  beforeEach(() => store.setTab("table"));
  const click = (layer: number, keys: MouseEventInit = {}): void => {
    rowOf(layer)
      .querySelector(".pe-i-td-op")
      ?.dispatchEvent(new MouseEvent("click", { bubbles: true, ...keys }));
  };
  const key = (name: string, keys: KeyboardEventInit = {}): void => {
    $(".pe-i-table").dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, ...keys }));
  };

  it("holds ten thousand layers in a few dozen elements", () => {
    inspector.dispose();
    mount(transformer(420));
    store.setTab("table");
    expect($(".pe-i-table").getAttribute("aria-rowcount")).toBe("11341");
    expect(all(".pe-i-tr").length).toBeLessThan(60);
    store.select([11000]);
    expect(rowOf(11000).getAttribute("aria-selected")).toBe("true");
    expect(all(".pe-i-tr").length).toBeLessThan(60);
  });

  it("selects with the graph, both ways", () => {
    click(3);
    expect([...store.selection]).toEqual([3]);
    click(6, { shiftKey: true });
    expect([...store.selection]).toEqual([3, 4, 5, 6]);
    click(4, { ctrlKey: true });
    expect([...store.selection]).toEqual([3, 5, 6]);
    store.select([8]);
    expect(all('.pe-i-tr[aria-selected="true"]').map((row) => row.dataset.layer)).toEqual(["8"]);
    expect($(".pe-i-table").getAttribute("aria-activedescendant")).toBe(rowOf(8).id);
  });

  it("is used by keys alone", async () => {
    key("ArrowDown");
    key("ArrowDown", { shiftKey: true });
    expect([...store.selection]).toEqual([0, 1]);
    key(" ");
    key("b");
    await settle();
    expect(asked("edit")).toEqual([
      { edit: { op: "toggle", layers: [0, 1] } },
      { edit: { op: "allow", layers: [0, 1] } },
    ]);
    key("End");
    expect(store.focus).toBe(store.model.layers - 1);
    key("a", { ctrlKey: true });
    expect(store.selection.size).toBe(store.model.layers);
    key("Enter");
    expect(store.tab).toBe("layer");
  });

  it("sorts by its headers and says so", () => {
    const header = (name: string): HTMLElement =>
      all(".pe-i-th").find((one) => one.textContent === name) as HTMLElement;
    header("local").querySelector("button")?.click();
    expect(header("local").getAttribute("aria-sort")).toBe("ascending");
    expect(shown().slice(0, 3)).toEqual([2, 5, 17]);
    header("local").querySelector("button")?.click();
    expect(header("local").getAttribute("aria-sort")).toBe("descending");
  });

  it("filters by text and chips, selects what is listed and edits it", async () => {
    const input = $<HTMLInputElement>(".pe-i-filter");
    input.value = "op:Pow";
    input.dispatchEvent(new Event("input"));
    await settle();
    expect(shown()).toEqual([2, 17]);
    press("Select these");
    expect([...store.selection]).toEqual([2, 17]);
    press("Toggle to fp32");
    expect(asked("edit")).toEqual([{ edit: { op: "toggle", layers: [2, 17] } }]);
    await settle();
    input.value = "";
    input.dispatchEvent(new Event("input"));
    await settle();
    press("fp32");
    expect(shown()).toEqual([2, 17]);
    press("fp16");
    expect($('.pe-i-chip[data-key="fp32"]').getAttribute("aria-pressed")).toBe("false");
  });

  it("toggles from a badge without changing the selection", () => {
    rowOf(1).querySelector<HTMLButtonElement>("button.pe-i-badge")?.click();
    expect(asked("edit")).toEqual([{ edit: { op: "toggle", layers: [1] } }]);
    expect(store.selection.size).toBe(0);
  });

  it("has what switching costs and saves once it is known, to filter and to sort by", async () => {
    const labels = (): (string | null)[] => all(".pe-i-th").map((one) => one.textContent);
    expect(labels()).not.toContain("saves");
    source.findFront();
    expect(labels()).toEqual(expect.arrayContaining(["sensitivity", "saves", "costs"]));
    const input = $<HTMLInputElement>(".pe-i-filter");
    input.value = "saves<0 costs<1";
    input.dispatchEvent(new Event("input"));
    await settle();
    expect(shown()).toEqual([0]);
    expect(rowOf(0).textContent).toContain("−0.9");
  });

  it("shows the columns that are chosen", () => {
    const boxes = all(".pe-i-menu label");
    expect(boxes.some((label) => label.textContent === "sensitivity")).toBe(false);
    const rms = boxes.find((label) => label.textContent === "rms")?.querySelector("input");
    rms?.click();
    expect(all(".pe-i-th").map((one) => one.textContent)).toContain("rms");
    const menu = $<HTMLDetailsElement>(".pe-i-columns");
    menu.open = true;
    document.body.dispatchEvent(new Event("pointerdown", { bubbles: true }));
    expect(menu.open).toBe(false);
  });
});

describe("findings", () => {
  beforeEach(() => store.setTab("findings"));

  it("select their layers and apply their fix", () => {
    press("Show the 2 layers");
    expect([...store.selection]).toEqual([2, 5]);
    press("Keep these 20 layers in fp32");
    expect(asked("edit")).toEqual([{ edit: { op: "fix", finding: "overflow" } }]);
    expect($(".pe-i-card code").textContent).toBe('x.plan = x.plan.block(layers=["*norm*/Pow"])');
  });

  it("carry their verdicts; causes that were not found are folded under a line that counts them", () => {
    expect(all(".pe-i-scroll > .pe-i-card")).toHaveLength(2);
    expect($(".pe-i-scroll > .pe-i-card .pe-i-verdict").textContent).toBe("confirmed");
    const folded = $<HTMLDetailsElement>(".pe-i-ruledout");
    expect(folded.open).toBe(false);
    expect(folded.querySelector("summary")?.textContent).toBe("3 causes ruled out, 1 not testable here");
    expect([...folded.querySelectorAll(".pe-i-verdict")].map((one) => one.textContent)).toEqual([
      "ruled out",
      "ruled out",
      "ruled out",
      "not testable here",
    ]);
    expect($('[role="tab"][aria-selected="true"]').textContent).toBe("Findings2"); // only what was found
    folded.open = true;
    folded.dispatchEvent(new Event("toggle"));
    source.state().findings[0] = { ...source.state().findings[0], title: "another" } as never;
    store.emit("data");
    expect($<HTMLDetailsElement>(".pe-i-ruledout").open).toBe(true); // it stays as the reader left it
    source.state().findings.splice(0, 2);
    store.emit("data");
    expect($(".pe-i-empty").textContent).toContain("Nothing stands out");
  });

  it("try a fix without setting it, and show before and after in place until the plan changes", async () => {
    press("Try");
    expect(host.textContent).toContain("the plan stays as it is");
    expect(asked("trial")).toEqual([{ edit: { op: "fix", finding: "overflow" } }]);
    await settle();
    const rows = all(".pe-i-outcome tbody tr").map((row) => [...row.children].map((one) => one.textContent));
    expect(rows[0]?.slice(0, 2)).toEqual(["output error", "not finite"]);
    expect(rows[0]?.[2]).toMatch(/dB\)$/);
    expect(rows[0]?.[3]).toBe("better");
    expect(rows[2]?.[3]).toBe("worse");
    expect($(".pe-i-trial").textContent).toContain("Errors emulated");
    store.emit("data"); // what happens elsewhere leaves it there
    expect(all(".pe-i-outcome")).toHaveLength(1);
    expect(asked("edit")).toEqual([]);
    press("Keep these 20 layers");
    await settle();
    expect(all(".pe-i-outcome")).toHaveLength(0);
  });

  it("show in place why a trial was refused", async () => {
    vi.spyOn(source, "request").mockRejectedValue(new RequestError("It does not run.", "", "Look at the log."));
    press("Try");
    await settle();
    expect($(".pe-i-trial .pe-i-refusal").textContent).toContain("It does not run.");
    expect(
      all("button")
        .find((one) => one.textContent === "Try")
        ?.hasAttribute("disabled"),
    ).toBe(false);
  });

  it("say that they are on their way while the first run is", () => {
    Object.assign(source.state(), { findings: [], run: { ...source.state().run, state: "running" } });
    store.emit("data");
    expect($(".pe-i-empty").textContent).toContain("being measured");
  });
});

describe("export", () => {
  beforeEach(async () => {
    store.setTab("export");
    await settle();
  });
  const field = (): HTMLInputElement => $<HTMLInputElement>(".pe-i-file input");

  it("writes to a sensible path, and shows where it went and the call", async () => {
    expect(field().value).toBe("transformer_of_1_blocks.fp16.onnx");
    press("Write");
    await settle();
    expect(asked("export")).toEqual([{ what: "onnx", path: "transformer_of_1_blocks.fp16.onnx" }]);
    expect($(".pe-i-done").textContent).toContain("~/user/transformer_of_1_blocks.fp16.onnx");
    expect(store.notice?.tone).toBe("call");
  });

  it("asks in place before it overwrites", async () => {
    field().value = "taken.onnx";
    press("Write");
    await settle();
    expect($(".pe-i-refusal").textContent).toContain("taken.onnx exists already");
    press("Overwrite");
    await settle();
    expect(asked("export")[1]).toEqual({ what: "onnx", path: "taken.onnx", overwrite: true });
    expect(host.querySelector(".pe-i-refusal")).toBeNull();
  });

  it("shows other refusals, and asks for no overwriting there", async () => {
    vi.spyOn(source, "request").mockRejectedValue(
      new RequestError("'a/b' cannot be written.", "", "Check that the folder exists, and that you may write there."),
    );
    press("Write");
    await settle();
    expect($(".pe-i-refusal").textContent).toContain("cannot be written");
    expect($(".pe-i-refusal").querySelector("button")).toBeNull();
  });

  it("gives the blacklist in another tool's syntax", async () => {
    const tool = $<HTMLSelectElement>(".pe-i-blacklist select");
    tool.value = "polygraphy";
    tool.dispatchEvent(new Event("change"));
    await settle();
    expect($<HTMLTextAreaElement>("textarea").value).toContain("# polygraphy");
    expect($(".pe-i-code code").textContent).toBe(source.state().code);
  });
});

describe("a report", () => {
  it("offers nothing that needs Python, and says why", async () => {
    inspector.dispose();
    mount(transformer(1), true);
    source.findFront();
    for (const tab of ["layer", "table", "tradeoff", "findings", "export"] as Tab[]) {
      store.setTab(tab);
      await settle();
      expect(
        all("button:not([hidden])").filter((button) =>
          /^(Block|Allow|Toggle|Write|Go back|Keep these|Find the|Search|Stop|Take|Try|What if)/.test(
            button.textContent ?? "",
          ),
        ),
      ).toEqual([]);
      expect(host.querySelector("button.pe-i-badge")).toBeNull();
    }
    expect(host.textContent).toContain("open the model in JupyterLab to export it");
  });
});

describe("hostile names", () => {
  it("are text everywhere", async () => {
    inspector.dispose();
    const made = transformer(1);
    const bad = `<img src=x onerror="alert(1)">\n'"&amp;👩‍🔬${"y".repeat(10_000)}`;
    made.layers.id[2] = bad;
    made.name = bad;
    made.ops[0] = "<b>op</b>";
    made.tensors.name = made.tensors.name.map((name) => `${name}<i>`);
    mount(made);
    Object.assign(source.state(), { warnings: [bad], samples: bad });
    Object.assign(source.state().tried[0] as object, { label: "<a href=x>$x$</a>" });
    Object.assign(source.state().findings[0] as object, { title: bad, text: bad, evidence: bad, code: `x("${bad}")` });
    for (const tab of ["layer", "table", "tradeoff", "findings", "export"] as Tab[]) {
      store.setTab(tab);
      store.select([]);
      await settle();
      store.select([2]);
      await settle();
      expect(host.querySelector("img, b > b, i, a")).toBeNull();
    }
    const hover = plotly.drawn
      .flatMap(({ data }) => data.flatMap((trace) => trace.hovertext as string[] | undefined))
      .filter(Boolean);
    expect(hover.join("").replaceAll("<br>", "")).not.toMatch(/[<>$]/);
    expect(hover.join("")).toContain("&#60;a href=x&#62;&#36;x&#36;");
  });
});

describe("the splitter", () => {
  it("moves by keys, is remembered, and folds away", () => {
    const edge = $(".pe-i-splitter");
    edge.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
    expect(host.style.width).toBe("424px");
    inspector.dispose();
    inspector = createInspector(host, store);
    expect(host.style.width).toBe("424px");
    $(".pe-i-fold").click();
    expect(host.classList.contains("pe-i-folded")).toBe(true);
    store.setTab("table"); // a tab that is asked for is shown
    expect(host.classList.contains("pe-i-folded")).toBe(false);
  });

  it("survives a browser without storage", () => {
    inspector.dispose();
    vi.spyOn(Storage.prototype, "getItem").mockImplementation(() => {
      throw new DOMException("denied", "SecurityError");
    });
    inspector = createInspector(host, store);
    expect(host.style.width).toBe("400px");
    vi.restoreAllMocks();
  });
});

describe("the end", () => {
  it("purges plots, and hears nothing any more", async () => {
    store.select([2]);
    await settle();
    store.setTab("tradeoff");
    await settle();
    expect(plotly.alive.size).toBe(3);
    store.setTab("table");
    inspector.dispose();
    expect(plotly.alive.size).toBe(0);
    expect(host.childElementCount).toBe(0);
    const before = plotly.drawn.length;
    document.body.className = "dark";
    store.select([3]);
    store.setTab("layer");
    await settle();
    expect(plotly.drawn).toHaveLength(before);
    expect(host.childElementCount).toBe(0);
  });

  it("purges a figure that plotly drew after it", async () => {
    let drawn = (): void => undefined;
    const react = plotly.react.bind(plotly);
    plotly.react = async (...args) => {
      await new Promise<void>((resolve) => {
        drawn = resolve;
      });
      return react(...args);
    };
    store.select([2]);
    await settle();
    inspector.dispose();
    drawn();
    await settle();
    expect(plotly.alive.size).toBe(0);
  });
});

describe("the theme", () => {
  it("redraws figures when it is switched", async () => {
    store.select([2]);
    await settle();
    const before = plotly.drawn.length;
    document.body.dataset.jpThemeLight = "false";
    await settle(600);
    expect(plotly.drawn.length).toBeGreaterThan(before);
  });
});
