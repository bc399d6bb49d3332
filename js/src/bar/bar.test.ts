// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Kind, PanelState, Requests, RunState } from "../protocol";
import { RequestError, type Source } from "../source";
import { Store } from "../store";
import { FakeSource, transformer } from "../testing/fixture";
import { createBar } from "./bar";

/** A fixture whose state a test can change, and which answers what the bar asks. */
class Stub implements Source {
  patch: Partial<PanelState> = {};
  readOnly = false;
  readonly readOnlyBecause = "This is a report.";
  answers: Record<string, () => Promise<object>> = {};
  readonly asked: { kind: string; ask: unknown }[] = [];
  private readonly inner = new FakeSource(transformer(2));
  private readonly heard = new Set<() => void>();

  structure = () => this.inner.structure();
  figures = () => this.inner.figures();
  state = (): PanelState => ({ ...this.inner.state(), ...this.patch });
  plotly = () => this.inner.plotly();
  dispose = () => this.inner.dispose();

  request<K extends Kind>(kind: K, ask: Requests[K][0]): Promise<Requests[K][1]> {
    this.asked.push({ kind, ask });
    const answer = this.answers[kind];
    return answer ? (answer() as Promise<Requests[K][1]>) : this.inner.request(kind, ask);
  }

  onChange(changed: () => void): () => void {
    this.heard.add(changed);
    const stop = this.inner.onChange(changed);
    return () => {
      this.heard.delete(changed);
      stop();
    };
  }

  become(patch: Partial<PanelState>): void {
    Object.assign(this.patch, patch);
    for (const changed of this.heard) changed();
  }
}

let source: Stub;
let store: Store;
let host: HTMLElement;
let bar: { dispose(): void };

function mount(): void {
  store = new Store(source);
  host = document.createElement("div");
  document.body.replaceChildren(host);
  bar = createBar(host, store);
}

beforeEach(() => {
  vi.useFakeTimers();
  source = new Stub();
  mount();
});
afterEach(() => {
  bar.dispose();
  store.dispose();
  vi.useRealTimers();
});

const find = <E extends HTMLElement = HTMLElement>(selector: string): E => {
  const found = host.querySelector<E>(selector);
  if (!found) throw new Error(`nothing is ${selector}`);
  return found;
};
const field = (label: string): HTMLSelectElement => {
  const labels = [...host.querySelectorAll("label")];
  const found = labels.find((each) => each.textContent?.startsWith(label))?.querySelector("select");
  if (!found) throw new Error(`no select is called ${label}`);
  return found;
};
const choose = (label: string, value: string): void => {
  field(label).value = value;
  field(label).dispatchEvent(new Event("change"));
};
const press = (key: string, on: HTMLElement = document.activeElement as HTMLElement): KeyboardEvent => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  on.dispatchEvent(event);
  return event;
};
const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(10);
const card = (key: string): HTMLElement => find(`[data-figure="${key}"]`);
const button = (text: string): HTMLButtonElement => {
  const all = [...host.querySelectorAll<HTMLButtonElement>("button")];
  const found = all.find((each) => (each.getAttribute("aria-label") ?? each.textContent)?.startsWith(text));
  if (!found) throw new Error(`no button says ${text}`);
  return found;
};
const run = (state: RunState["state"], more: Partial<RunState> = {}): RunState => ({
  state,
  stage: "",
  done: 0,
  total: 0,
  seconds: null,
  error: null,
  ...more,
});

describe("controls", () => {
  it("show the state, with what a backend lacks in its option", () => {
    expect(field("Format").value).toBe("fp16");
    expect(field("Preset").value).toBe("full");
    expect(field("Latency on").value).toBe("H100");
    const texts = [...field("Backend").options].map((option) => option.textContent);
    expect(texts).toEqual(["ONNX Runtime, CUDA (not installed)", "ONNX Runtime, CPU (ready)"]);
  });

  it("send edits, and show the call that they were", async () => {
    choose("Format", "bf16");
    choose("Preset", "safe");
    find<HTMLInputElement>("input[type=checkbox]").click();
    await settle();
    expect(source.asked.map(({ ask }) => (ask as { edit: object }).edit)).toEqual([
      { op: "format", name: "bf16" },
      { op: "preset", name: "safe" },
      { op: "keep_io", value: false },
    ]);
    expect(find(".pe-notice-code").textContent).toContain("# keep_io");
  });

  it("keep the user's choice until Python has answered, then show what holds", async () => {
    let answer: (value: object) => void = () => undefined;
    source.answers.edit = () => new Promise((resolve) => (answer = resolve));
    choose("Format", "bf16");
    source.become({});
    expect(field("Format").value).toBe("bf16");
    answer({ call: "refused quietly" });
    await settle();
    expect(field("Format").value).toBe("fp16");
  });

  it("tell how to get a backend when it is chosen, until that is dismissed", async () => {
    source.answers.target = async () => ({ call: 'x.target = "onnxruntime-cuda"' });
    choose("Backend", "onnxruntime-cuda");
    await settle();
    expect(source.asked).toEqual([{ kind: "target", ask: { name: "onnxruntime-cuda" } }]);
    const note = [...host.querySelectorAll<HTMLElement>(".pe-strip")].find((each) => !each.hidden);
    expect(note?.textContent).toContain("pip install onnxruntime-gpu");
    expect(note?.textContent).toContain("snapshot of 1.31.1");
    note?.querySelector("button")?.click();
    expect(note?.hidden).toBe(true);
  });

  it("show 'custom' when no preset holds, and only then", () => {
    source.become({ preset: "" });
    expect(field("Preset").selectedOptions[0]?.textContent).toBe("custom");
    source.become({ preset: "safe" });
    expect([...field("Preset").options].map((option) => option.value)).toEqual(["full", "safe", "fp32"]);
  });

  it("say why a request was refused, until that is dismissed", async () => {
    source.answers.gpu = async () => {
      throw new RequestError("No GPU is called A100.", "", "Choose another.");
    };
    choose("Latency on", "A100");
    await settle();
    expect(field("Latency on").value).toBe("H100");
    expect(find(".pe-notice [role=alert]").textContent).toBe("No GPU is called A100. Choose another.");
    store.say("x.plan = y", "call");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(find(".pe-notice [role=alert]").textContent).toContain("No GPU");
    button("Dismiss").click();
    const open = [...host.querySelectorAll<HTMLButtonElement>('.pe-notice [aria-label="Dismiss"]')];
    for (const each of open) each.click();
    expect(find(".pe-notice-code").textContent).toBe("x.plan = y");
  });

  it("undo and redo are off where there is nothing to undo, and tell how far back they go", () => {
    expect(button("Undo").disabled).toBe(true);
    source.become({ undo: 3, redo: 1 });
    expect(button("Undo").title).toBe("Undo (3 steps)");
    expect(button("Redo").title).toBe("Redo (1 step)");
    button("Undo").click();
    button("Redo").click();
    expect(source.asked.map(({ ask }) => ask)).toEqual([{ edit: { op: "undo" } }, { edit: { op: "redo" } }]);
  });
});

describe("op types", () => {
  const opener = (): HTMLButtonElement => find(".pe-ops-open");
  const options = (): HTMLElement[] => [...host.querySelectorAll<HTMLElement>("[role=option]")];
  const names = (): (string | null | undefined)[] =>
    options().map((option) => option.querySelector(".pe-ops-name")?.textContent);
  const active = (): string | undefined => {
    const id = find("[role=combobox]").getAttribute("aria-activedescendant");
    return id ? (host.querySelector(`[id="${id}"] .pe-ops-name`)?.textContent ?? undefined) : undefined;
  };
  const type = (text: string): void => {
    const input = find<HTMLInputElement>("[role=combobox]");
    input.value = text;
    input.dispatchEvent(new Event("input"));
  };

  it("opens with counts per op type, the focus in the filter", () => {
    opener().click();
    expect(opener().getAttribute("aria-expanded")).toBe("true");
    expect(document.activeElement).toBe(find("[role=combobox]"));
    const softmax = options().find((option) => option.textContent?.includes("Softmax"));
    expect(softmax?.textContent).toContain("2 (2 low)");
    expect(softmax?.getAttribute("aria-selected")).toBe("false");
  });

  it("is worked by keys alone: open, filter, move, block, close", async () => {
    opener().focus();
    press("ArrowDown");
    type("m");
    expect(names()).toEqual(["ReduceMean", "Mul", "MatMul", "Softmax"]);
    expect(active()).toBe("ReduceMean");
    press("End");
    expect(active()).toBe("Softmax");
    press("ArrowUp");
    press("ArrowDown");
    expect(press("Enter").defaultPrevented).toBe(true);
    expect(source.asked[0]?.ask).toEqual({ edit: { op: "block_ops", ops: ["Softmax"] } });
    press("Home");
    press(" ");
    expect(source.asked[1]?.ask).toEqual({ edit: { op: "block_ops", ops: ["ReduceMean"] } });
    press("Escape");
    expect(find(".pe-ops").hidden).toBe(true);
    expect(document.activeElement).toBe(opener());
    await settle();
  });

  it("keeps keys from the graph while it is open", () => {
    const heard = vi.fn();
    host.addEventListener("keydown", heard);
    opener().click();
    for (const key of ["b", " ", "Escape", "/"]) press(key, find("[role=combobox]"));
    expect(heard).not.toHaveBeenCalled();
  });

  it("shows a choice at once, and takes it back when Python refuses", async () => {
    let refuse: (error: Error) => void = () => undefined;
    source.answers.edit = () => new Promise((_, reject) => (refuse = reject));
    opener().click();
    type("softmax");
    options()[0]?.click();
    expect(options()[0]?.getAttribute("aria-selected")).toBe("true");
    expect(opener().textContent).toBe("Softmax");
    refuse(new RequestError("No."));
    await settle();
    expect(options()[0]?.getAttribute("aria-selected")).toBe("false");
    expect(opener().textContent).toBe("none");
  });

  it("allows all again with one edit", async () => {
    source.become({
      ops: [
        { op: "Softmax", count: 12, low: 0, blocked: true },
        { op: "Pow", count: 2, low: 0, blocked: true },
        { op: "Add", count: 9, low: 9, blocked: false },
      ],
    });
    expect(opener().textContent).toBe("Softmax + 1");
    opener().click();
    button("Allow all").click();
    expect(source.asked[0]?.ask).toEqual({ edit: { op: "unblock_ops", ops: ["Softmax", "Pow"] } });
    await settle();
  });

  it("says so when no op type fits the filter", () => {
    opener().click();
    type("nothing like this");
    expect(options()).toHaveLength(0);
    expect(find(".pe-ops-nothing").textContent).toContain("nothing like this");
    expect(press("Enter").defaultPrevented).toBe(true);
    expect(source.asked).toHaveLength(0);
  });

  it("closes when the pointer goes down elsewhere", () => {
    opener().click();
    document.body.dispatchEvent(new Event("pointerdown", { bubbles: true, composed: true }));
    expect(find(".pe-ops").hidden).toBe(true);
  });
});

describe("run state", () => {
  it("shows stage and progress, and cancels once", async () => {
    let answer: (value: object) => void = () => undefined;
    source.answers.cancel = () => new Promise((resolve) => (answer = resolve));
    source.become({ run: run("running", { stage: "local errors", done: 3, total: 12 }) });
    expect(find(".pe-run-words").textContent).toBe("local errors");
    expect(find<HTMLProgressElement>("progress").value).toBeCloseTo(0.25);
    button("Cancel").click();
    button("Cancel").click();
    expect(source.asked).toEqual([{ kind: "cancel", ask: {} }]);
    answer({});
    await settle();
    expect(button("Cancel").disabled).toBe(false);
  });

  it("shows progress of unknown length as such", () => {
    source.become({ run: run("running", { stage: "compiling" }) });
    expect(find("progress").hasAttribute("value")).toBe(false);
  });

  it("tells what failed, why, and what to do, with a retry", () => {
    source.answers.run = async () => ({});
    const error = { what: "The model does not run.", why: "It is broken.", fix: "Repair it." };
    source.become({ run: run("failed", { error }) });
    expect(find(".pe-strip-stop").hidden).toBe(false);
    expect(find(".pe-strip-stop").textContent).toBe("The model does not run. It is broken. Repair it.");
    button("Retry").click();
    expect(source.asked).toEqual([{ kind: "run", ask: {} }]);
    source.become({ run: run("idle", { seconds: 0.21 }) });
    expect(find(".pe-strip-stop").hidden).toBe(true);
    expect(find(".pe-run-words").textContent).toContain("210 ms");
    source.become({ run: run("idle") });
    expect(find(".pe-run-words").textContent).toBe("up to date, ran before");
    store.taking = 1e-3; // let go of the budget: Python has not begun yet
    store.emit("preview");
    expect(find(".pe-run-words").textContent).toBe("about to run");
  });

  it("offers to run again after a cancel", () => {
    source.answers.run = async () => ({});
    source.become({ run: run("cancelled") });
    expect(find(".pe-run-words").textContent).toBe("Cancelled"); // a measurement: errors are of the plan that is set
    button("Run again").click();
    expect(source.asked).toEqual([{ kind: "run", ask: {} }]);
  });
});

describe("headline figures", () => {
  it("carry their provenance, in sight and whole in a tooltip for the keyboard too", () => {
    const error = card("output_error");
    expect(error.textContent).toContain("-3.2 dB");
    expect(error.querySelector(".pe-card-source")?.textContent).toMatch(/^emulated/);
    error.focus();
    const tip = find("[role=tooltip]");
    expect(tip.hidden).toBe(false);
    expect(tip.textContent).toContain("emulated: fp16 storage rounding");
    expect(error.getAttribute("aria-describedby")).toBe(tip.id);
    press("Escape", error);
    expect(tip.hidden).toBe(true);
  });

  it("are greyed while they are of an older plan, errors longer than casts", async () => {
    source = new Stub();
    mount();
    let answer: (value: object) => void = () => undefined;
    source.answers.edit = () => new Promise((resolve) => (answer = resolve));
    void store.edit({ op: "toggle", layers: [3] });
    const old = (): (string | undefined)[] =>
      [...host.querySelectorAll<HTMLElement>(".pe-stale")].map((each) => each.dataset.figure);
    expect(old()).toEqual(["output_error", "metric", "low_share", "casts", "latency"]);
    source.become({ revision: 1 });
    answer({ call: "" });
    await settle();
    expect(old()).toEqual(["output_error", "metric"]);
    expect(card("output_error").getAttribute("aria-label")).toContain("of the plan before");
    source.become({ revision: 0 });
    expect(old()).toEqual([]);
  });

  it("show what is not known as such, and leave accuracy out where there are no labels", () => {
    const headline = { ...source.state().headline, output_error: null, metric: null, latency: null };
    source.become({ headline, gpu: "" });
    expect(card("metric").hidden).toBe(true);
    expect(card("output_error").textContent).toContain("not measured");
    expect(card("latency").textContent).toContain("choose what");
    expect(card("latency").textContent).not.toMatch(/\d/);
  });

  it("mark an output that is not finite by a shape", () => {
    const broken = { value: "nan" as const, text: "not finite", provenance: "emulated" };
    source.become({ headline: { ...source.state().headline, output_error: broken } });
    expect(card("output_error").dataset.tone).toBe("stop");
  });

  it("warn of random inputs", () => {
    const warning = find(".pe-strip-warn");
    expect(warning.hidden).toBe(true);
    source.become({ random: true });
    expect(warning.hidden).toBe(false);
    expect(warning.textContent).toContain("Random inputs");
  });
});

describe("notices", () => {
  it("tell what the figures were taken on until something happens", () => {
    expect(find(".pe-notice").textContent).toContain("360 samples from digits.npz");
  });

  it("show a note for a while, then the last call again", async () => {
    store.say("x.plan = x.plan.block(op_types=['Pow'])", "call");
    store.say("Nothing to do.");
    expect(find("[aria-live=polite]").textContent).toBe("Nothing to do.");
    await vi.advanceTimersByTimeAsync(9000);
    expect(find(".pe-notice-code").textContent).toBe("x.plan = x.plan.block(op_types=['Pow'])");
  });

  it("leave the line to an error, also after a call", () => {
    store.say("x.plan = y", "call");
    store.say("Not set.", "error");
    expect(find("[aria-live=polite]").childNodes).toHaveLength(0);
    expect(find(".pe-notice [role=alert]").textContent).toBe("Not set.");
  });

  it("copy a call, or select it where the clipboard is closed", async () => {
    const writeText = vi.fn(async () => undefined);
    vi.stubGlobal("navigator", { clipboard: { writeText } });
    store.say("x.plan = y", "call");
    button("Copy").click();
    await settle();
    expect(writeText).toHaveBeenCalledWith("x.plan = y");
    expect(button("Copied")).toBeTruthy();
    await vi.advanceTimersByTimeAsync(2000);
    vi.stubGlobal("navigator", {});
    button("Copy").click();
    await settle();
    expect(button("Selected")).toBeTruthy();
    vi.unstubAllGlobals();
  });

  it("never read markup", () => {
    store.say("<img src=x onerror=alert(1)>", "error");
    expect(host.querySelector("img")).toBeNull();
  });
});

describe("the bar", () => {
  it("shows only figures and the reason where nothing can be changed", () => {
    source.readOnly = true;
    source.become({});
    expect(host.classList.contains("pe-read-only")).toBe(true);
    expect(find(".pe-strip").textContent).toContain("This is a report.");
    expect(find(".pe-strip").textContent).toContain("Plan in fp16, preset full");
    expect(card("casts").textContent).toContain("12");
  });

  it("leaves nothing behind when it is disposed of", async () => {
    const added = vi.spyOn(document, "addEventListener");
    const removed = vi.spyOn(document, "removeEventListener");
    find<HTMLButtonElement>(".pe-ops-open").click();
    const before = vi.getTimerCount(); // jsdom has some of its own
    store.say("a note");
    expect(vi.getTimerCount()).toBe(before + 1);
    bar.dispose();
    expect(host.childElementCount).toBe(0);
    expect(removed).toHaveBeenCalledTimes(added.mock.calls.length);
    expect(vi.getTimerCount()).toBe(before);
    source.become({ undo: 9 });
    store.say("unheard", "error");
    expect(host.childElementCount).toBe(0);
  });
});

describe("formats and devices", () => {
  const field = (label: string): HTMLElement =>
    [...document.querySelectorAll<HTMLElement>(".pe-bar-field")].find((one) =>
      one.textContent?.startsWith(label),
    ) as HTMLElement;
  const options = (label: string): HTMLOptionElement[] => [...field(label).querySelectorAll("option")];
  let source: FakeSource;
  let host: HTMLElement;

  beforeEach(() => {
    document.body.replaceChildren();
    host = document.createElement("div");
    document.body.append(host);
    source = new FakeSource(transformer(1));
    createBar(host, new Store(source));
  });

  it("say what each format is and needs; one that the model refuses says why, and cannot be chosen", () => {
    const found = options("Format").map((one) => [one.value, one.textContent, one.disabled]);
    expect(found).toEqual([
      ["fp16", "fp16: half the bytes", false],
      ["bf16", "bf16: needs opset 13", true],
      ["int8", "int8: needs a calibration", false],
    ]);
    expect(field("Format").querySelector(".pe-bar-face")?.textContent).toBe("fp16");
  });

  it("stand in groups, with what is missing for those that cannot run", () => {
    const groups = [...field("Latency on").querySelectorAll("optgroup")].map((one) => one.label);
    expect(groups).toEqual(["measured here", "predicted"]);
    expect(options("Latency on").map((one) => one.textContent)).toContain("TensorRT (no device)");
  });

  it("keep I/O on where a format cannot be I/O", () => {
    const box = field("I/O types").querySelector("input") as HTMLInputElement;
    expect(box.disabled).toBe(false);
    const { state } = source;
    source.state = () => ({ ...state(), format: "int8", io_choice: false });
    source.measure([]); // tells of a change
    expect([box.checked, box.disabled]).toEqual([true, true]);
    expect(field("I/O types").title).toContain("cannot be int8");
  });
});
