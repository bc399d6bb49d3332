// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Requests } from "../protocol";
import { RequestError } from "../source";
import { Store } from "../store";
import { FakeSource, transformer } from "../testing/fixture";
import { type Budget, createBudget } from "./budget";

let source: FakeSource;
let store: Store;
let budget: Budget;
let slider: HTMLInputElement;

function mount(readOnly = false): void {
  source = new FakeSource(transformer(2), readOnly, 50);
  source.findFront();
  store = new Store(source);
  budget = createBudget(store);
  document.body.replaceChildren(budget.element);
  store.on("data", budget.update);
  budget.update();
  slider = budget.element.querySelector("input") as HTMLInputElement;
}

beforeEach(() => {
  vi.useFakeTimers();
  mount();
});
afterEach(() => {
  budget.dispose();
  store.dispose();
  source.dispose();
  vi.useRealTimers();
});

const settle = (ms = 10): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
const asked = (kind: string): unknown[] => source.asked.filter((one) => one.kind === kind).map((one) => one.ask);
const words = (): string => (budget.element.textContent ?? "").replaceAll("\u202f", " ");
const down = (): void => void slider.dispatchEvent(new Event("pointerdown", { bubbles: true }));
const drag = (error: number): void => {
  slider.value = String(20 * Math.log10(error));
  slider.dispatchEvent(new Event("input"));
};
const up = (): void => void document.dispatchEvent(new Event("pointerup"));
const press = (key: string): KeyboardEvent => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  slider.dispatchEvent(event);
  return event;
};
const formats = (): string[] => Array.from({ length: store.model.layers }, (_, layer) => store.formatOf(layer));

/** Holds the answers to requests of a kind back until they are let go, in order. */
function holdBack(kind: keyof Requests): { answer(): Promise<unknown> } {
  const held: (() => void)[] = [];
  const ask = source.request.bind(source);
  vi.spyOn(source, "request").mockImplementation((which, args) => {
    const answer = ask(which, args);
    return which === kind ? new Promise((resolve, reject) => held.push(() => answer.then(resolve, reject))) : answer;
  });
  return {
    answer() {
      held.shift()?.();
      return settle();
    },
  };
}

describe("the budget", () => {
  it("is there once there is a front, where plans can be set, and says why it does not fit", () => {
    expect(budget.element.hidden).toBe(false);
    expect(words()).toContain("drag: the fastest plan within it");
    expect(words()).not.toContain("≤"); // nothing was chosen yet
    source.findFront({ stale: "the format changed" });
    expect(slider.disabled).toBe(true);
    expect(words()).toContain("search again (tab Trade-off): the format changed");
    source.findFront({ budget: null });
    expect(budget.element.hidden).toBe(true);
    mount(true);
    expect(budget.element.hidden).toBe(true);
  });

  it("shows what is asked for and what it gives while it is dragged, and sets it on release", async () => {
    const before = formats();
    down();
    drag(1e-3);
    await settle();
    expect(asked("budget")).toEqual([{ error: 0.001 }]);
    expect(words()).toContain("error ≤ 1.0e-3 (60 dB)");
    expect(words()).toMatch(/predicted: error \d\.\de-4, [\d.]+ µs, [\d.]+ % in fp16/);
    expect(slider.getAttribute("aria-valuetext")).toMatch(/^error at most 1\.0e-3, 60 decibels; predicted/);
    expect(formats()).not.toEqual(before);
    expect(asked("take")).toEqual([]);
    up();
    expect(asked("take")).toEqual([{ error: 0.001 }]);
    expect(store.preview?.taken).toBe(true);
    const previewed = formats();
    await settle(200);
    expect(store.preview).toBeNull();
    expect(formats()).toEqual(previewed); // the plan itself now
    expect(words()).toContain("the fastest plan within it is set");
    expect(store.notice?.text).toContain("max_error=1.0e-3");
    expect(slider.valueAsNumber).toBeCloseTo(-60, 5);
  });

  it("has one question under way at a time, and then asks for the newest", async () => {
    const held = holdBack("budget");
    down();
    for (const error of [1e-4, 2e-4, 3e-4, 5e-4]) drag(error);
    expect(asked("budget")).toEqual([{ error: 1e-4 }]);
    await held.answer();
    expect(store.preview?.budget).toBe(1e-4);
    expect(asked("budget")).toEqual([{ error: 1e-4 }, { error: 5e-4 }]);
    await held.answer();
    expect(store.preview?.budget).toBe(5e-4);
    expect(asked("budget")).toHaveLength(2);
  });

  it("asks for two digits, within its ends", () => {
    down();
    drag(1.23456e-3);
    const { low, high } = store.state.search.budget as { low: number; high: number };
    expect(asked("budget")).toEqual([{ error: 0.0012 }]);
    expect(Number(slider.min)).toBeCloseTo(20 * Math.log10(low), 6);
    expect(Number(slider.max)).toBeCloseTo(20 * Math.log10(high), 6);
    expect(store.state.search.chosen).toBeNull();
  });

  it("goes back by Escape, whatever the pointer does until it is up", async () => {
    const before = formats();
    down();
    drag(1e-3);
    await settle();
    expect(press("Escape").defaultPrevented).toBe(true);
    expect(store.preview).toBeNull();
    expect(formats()).toEqual(before);
    drag(2e-3);
    up();
    await settle(2000);
    expect(asked("take")).toEqual([]);
    expect(store.preview).toBeNull();
    expect(press("Escape").defaultPrevented).toBe(false); // nothing to go back from: others may have the key
    down();
    drag(5e-4);
    up();
    expect(asked("take")).toEqual([{ error: 0.0005 }]);
  });

  it("drops an answer that comes after Escape", async () => {
    const held = holdBack("budget");
    down();
    drag(1e-3);
    press("Escape");
    await held.answer();
    expect(store.preview).toBeNull();
  });

  it("shows an answer that comes after the release, until the plan is set", async () => {
    const held = holdBack("budget");
    down();
    drag(1e-3);
    up(); // a click
    await held.answer();
    expect(store.preview).toMatchObject({ budget: 1e-3, taken: true });
    await settle(200);
    expect(store.preview).toBeNull();
  });

  it("moves by keys in steps of a decibel, and sets the plan when they rest, at once by Enter", async () => {
    source.findFront({ chosen: 6e-4 });
    press("ArrowLeft");
    await settle();
    expect(asked("budget")).toEqual([{ error: 0.00056 }]);
    press("PageUp");
    await settle(500);
    expect(asked("budget").at(-1)).toEqual({ error: 0.0011 });
    expect(asked("take")).toEqual([]);
    await settle(400);
    expect(asked("take")).toEqual([{ error: 0.0011 }]);
    await settle(200);
    press("ArrowUp");
    press("Enter");
    expect(asked("take")).toHaveLength(2);
    await settle(2000);
    expect(asked("take")).toHaveLength(2);
    press("End");
    press("Escape");
    await settle(2000);
    expect(asked("take")).toHaveLength(2);
  });

  it("keeps its keys from the graph", () => {
    const heard = vi.fn();
    document.body.addEventListener("keydown", heard);
    press("ArrowRight");
    press("Escape");
    expect(heard).not.toHaveBeenCalled();
    press("f");
    expect(heard).toHaveBeenCalledOnce();
    document.body.removeEventListener("keydown", heard);
  });

  it("says why Python refused, and shows the plan again", async () => {
    down();
    drag(1e-3);
    await settle();
    vi.spyOn(source, "request").mockRejectedValue(new RequestError("No plan is that exact.", "", "Allow more."));
    up();
    await settle();
    expect(store.notice).toMatchObject({ tone: "error", text: "No plan is that exact. Allow more." });
    expect(store.preview).toBeNull();
  });

  it("is disposed of in the middle of a drag", async () => {
    down();
    drag(1e-3);
    budget.dispose();
    up();
    await settle(2000);
    expect(asked("take")).toEqual([]);
  });
});
