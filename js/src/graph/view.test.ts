// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Store } from "../store";
import { columnLayout, stubCanvas, type Written } from "../testing/column";
import { FakeSource, transformer } from "../testing/fixture";
import { boxSentence, layerRows, layerSentence, provenance, wireRows } from "./describe";
import { paint } from "./draw";
import { hitTest } from "./hit";
import { handleKey, KEYS } from "./keyboard";
import { itemsFor } from "./menu";
import { attachPointer } from "./pointer";
import { find, haystack } from "./search";
import { fitText, oneLine, shortName } from "./text";
import { View } from "./view";
import { trueEdgesOf } from "./ways";
import { castsOf } from "./wires";

let written: Written;
let source: FakeSource;
let store: Store;
let view: View;
const parts = { search: vi.fn(), keys: vi.fn(), menu: vi.fn(), boxMode: vi.fn(), clear: vi.fn() };

function start(readOnly = false): void {
  source = new FakeSource(transformer(2), readOnly);
  store = new Store(source);
  store.setOpen(store.model.structure.groups.label.keys());
  const host = document.createElement("div");
  const canvas = document.createElement("canvas");
  host.append(canvas);
  document.body.append(host);
  view = new View(host, canvas, store, columnLayout(store.model));
  view.resize({ width: 800, height: 600 }, 1);
  store.on("groups", () => view.relayout());
  store.on(["data", "colour"], () => view.refresh());
  store.on("selection", () => view.selectionChanged());
}

beforeEach(() => {
  vi.stubGlobal("matchMedia", (query: string) => ({ matches: query.includes("reduced-motion") }));
  written = stubCanvas();
  start();
});
afterEach(() => {
  view.dispose();
  document.body.replaceChildren();
  written.restore();
  vi.unstubAllGlobals();
  vi.clearAllMocks();
});

function press(key: string, more: KeyboardEventInit = {}): boolean {
  return handleKey(view, parts, new KeyboardEvent("keydown", { key, ...more }));
}

function edits(): unknown[] {
  return source.asked.filter(({ kind }) => kind === "edit").map(({ ask }) => (ask as { edit: unknown }).edit);
}

const layerBox = (layer: number): number => view.scene.boxOf(layer);

describe("keyboard", () => {
  it("toggles and blocks what is selected, and shows it before the answer", () => {
    view.pick(layerBox(2));
    expect(press(" ")).toBe(true);
    expect(edits()).toEqual([{ op: "toggle", layers: [2] }]);
    expect(store.formatOf(2)).toBe("fp32");
    press("b");
    expect(edits()[1]).toEqual({ op: "allow", layers: [2] }); // it is kept in fp32 already
  });

  it("undoes and redoes only when there is something to", async () => {
    press("z", { ctrlKey: true });
    expect(edits()).toEqual([]);
    expect(store.notice?.text).toBe("Nothing to undo.");
    view.pick(layerBox(2));
    press(" ");
    await vi.waitFor(() => expect(store.state.undo).toBe(1));
    press("z", { metaKey: true });
    expect(edits()[1]).toEqual({ op: "undo" });
    press("Z", { ctrlKey: true, shiftKey: true });
    expect(store.notice?.text).toBe("Nothing to redo.");
  });

  it("goes along the edges, and adds with shift", () => {
    view.pick(layerBox(3));
    press("ArrowDown");
    expect([...store.selection]).toEqual([4]);
    press("ArrowUp");
    expect([...store.selection]).toEqual([3]);
    press("ArrowDown", { shiftKey: true });
    expect([...store.selection]).toEqual([3, 4]);
  });

  it("folds the scope around a layer, stands on it, and unfolds it again", () => {
    view.pick(layerBox(2));
    const scope = store.model.groupOf(2);
    press("Enter");
    expect(store.open.has(scope)).toBe(false);
    expect(view.scene.boxes[view.boxOfKey(view.cursor)]?.group).toBe(scope);
    press("Enter");
    expect(store.open.has(scope)).toBe(true);
  });

  it("selects all, clears, and opens what the keys open", () => {
    press("a", { ctrlKey: true });
    expect(store.selection.size).toBe(store.model.layers);
    press("Escape");
    expect(store.selection.size).toBe(0);
    expect(parts.clear).toHaveBeenCalledOnce();
    press("/");
    press("?");
    press("s");
    press("F10", { shiftKey: true });
    press("ContextMenu");
    expect(parts.search).toHaveBeenCalledOnce();
    expect(parts.keys).toHaveBeenCalledOnce();
    expect(parts.boxMode).toHaveBeenCalledOnce();
    expect(parts.menu).toHaveBeenCalledTimes(2);
  });

  it("leaves keys alone that mean nothing here", () => {
    for (const key of ["x", "Tab", "F5", "Shift"]) expect(press(key)).toBe(false);
    expect(press("c", { ctrlKey: true })).toBe(false);
    expect(press("f", { altKey: true })).toBe(false);
    expect(KEYS.every(([keys, does]) => keys && does)).toBe(true);
  });

  it("says why a layer that cannot be switched stays as it is", () => {
    const figures = { ...source.figures(), switchable: new Uint8Array(store.model.layers) };
    source.figures = () => figures;
    view.pick(layerBox(0));
    press(" ");
    expect(edits()).toEqual([]);
    expect(store.notice?.text).toContain("cannot be switched");
  });
});

describe("pointer", () => {
  const hover = vi.fn();
  const menu = vi.fn();
  const focus = vi.fn();
  let stop: () => void;
  beforeEach(() => {
    stop = attachPointer(view, { hover, menu, focus });
    view.look({ x: 0, y: 0, scale: 1 }, false);
  });
  afterEach(() => stop());

  const fire = (type: string, x: number, y: number, more: MouseEventInit = {}): void => {
    const at = { clientX: x, clientY: y, bubbles: true, cancelable: true, ...more };
    view.canvas.dispatchEvent(new MouseEvent(type, at));
  };
  const click = (x: number, y: number, more: MouseEventInit = {}): void => {
    fire("pointerdown", x, y, more);
    fire("pointerup", x, y, more);
  };
  /** A point of the canvas in the middle of the lower half of a layer's box. */
  const on = (layer: number): [number, number] => {
    const box = view.onScreen(layerBox(layer));
    return [box.x + box.width / 2, box.y + box.height * 0.75];
  };

  it("selects by click, adds by shift-click, and clears on paper", () => {
    click(...on(0));
    expect([...store.selection]).toEqual([0]);
    expect(focus).toHaveBeenCalled();
    click(...on(1), { shiftKey: true });
    expect([...store.selection]).toEqual([0, 1]);
    click(...on(1), { shiftKey: true });
    expect([...store.selection]).toEqual([0]);
    click(700, 500);
    expect(store.selection.size).toBe(0);
  });

  it("toggles by a click on the badge, without selecting", () => {
    const box = view.onScreen(layerBox(0));
    click(box.x + box.width - 20, box.y + 15);
    expect(edits()).toEqual([{ op: "toggle", layers: [0] }]);
    expect(store.selection.size).toBe(0);
  });

  it("pans by a drag, and does not take it for a click", () => {
    const before = view.camera;
    fire("pointerdown", 400, 300);
    fire("pointermove", 400, 200, { buttons: 1 });
    fire("pointerup", 400, 200);
    expect(view.camera.y).toBeCloseTo(before.y + 100);
    expect(store.selection.size).toBe(0);
  });

  it("selects all layers in a box that is dragged with shift", () => {
    const [first, last] = [view.onScreen(layerBox(0)), view.onScreen(layerBox(2))];
    fire("pointerdown", first.x - 10, first.y - 5, { shiftKey: true });
    fire("pointermove", last.x + 40, last.y + 10, { shiftKey: true, buttons: 1 });
    fire("pointerup", last.x + 40, last.y + 10, { shiftKey: true });
    expect([...store.selection].sort()).toEqual([0, 1, 2]);
    expect(view.marquee).toBeNull();
  });

  it("tells boxes, frames' titles, triangles, wires and paper apart", () => {
    const box = view.onScreen(layerBox(1));
    expect(hitTest(view, box.x + 60, box.y + 40)).toMatchObject({ box: layerBox(1), part: "body" });
    expect(hitTest(view, box.x + 80, box.y + box.height + 16).wire).toBeGreaterThanOrEqual(0);
    expect(hitTest(view, 700, 20)).toEqual({ box: -1, part: "none", wire: -1 });
    const group = view.onScreen(view.scene.boxOfGroup(1));
    expect(hitTest(view, group.x + 5, group.y + 5)).toMatchObject({ part: "chevron" });
    expect(hitTest(view, group.x + 90, group.y + 5)).toMatchObject({ part: "body" });
  });

  it("opens the menu on what is pointed at", () => {
    fire("contextmenu", ...on(1));
    expect([...store.selection]).toEqual([1]);
    expect(menu).toHaveBeenCalledOnce();
  });

  it("turns with the wheel until the graph ends, then lets the page turn; ctrl zooms", () => {
    const turn = (more: WheelEventInit): boolean => {
      const event = new WheelEvent("wheel", { bubbles: true, cancelable: true, ...more });
      view.canvas.dispatchEvent(event);
      return event.defaultPrevented;
    };
    expect(turn({ deltaY: 100 })).toBe(true);
    expect(view.camera.y).toBeCloseTo(100);
    view.look({ x: 0, y: 1e9, scale: 1 }, false);
    expect(turn({ deltaY: 100 })).toBe(false);
    expect(turn({ deltaY: -100, ctrlKey: true })).toBe(true);
    expect(view.camera.scale).toBeGreaterThan(1);
  });

  it("leaves a turn of the wheel to the page that began on the page", () => {
    document.body.dispatchEvent(new WheelEvent("wheel", { deltaY: 50, bubbles: true, cancelable: true }));
    const event = new WheelEvent("wheel", { deltaY: 50, bubbles: true, cancelable: true });
    view.canvas.dispatchEvent(event);
    expect(event.defaultPrevented).toBe(false);
  });

  it("hears nothing any more when it was stopped", () => {
    stop();
    click(...on(0));
    const wheel = new WheelEvent("wheel", { deltaY: 50, bubbles: true, cancelable: true });
    view.canvas.dispatchEvent(wheel);
    expect(store.selection.size).toBe(0);
    expect(wheel.defaultPrevented).toBe(false);
  });
});

describe("view", () => {
  it("opens at the top, readable, and brings a selection made elsewhere into sight", () => {
    expect(view.camera.scale).toBe(1);
    expect(view.camera.y).toBeLessThanOrEqual(0);
    const last = store.model.layers - 1;
    store.reveal(last);
    const box = view.onScreen(layerBox(last));
    expect(box.y).toBeGreaterThan(0);
    expect(box.y + box.height).toBeLessThan(600);
  });

  it("keeps a scope where it is on screen when it folds", () => {
    const group = store.model.groupOf(30);
    store.reveal(30);
    const before = view.onScreen(view.scene.boxOfGroup(group));
    view.fold(group, false);
    const after = view.onScreen(view.scene.boxOfGroup(group));
    expect(after.y).toBeCloseTo(before.y);
  });

  it("may have no size, and draws when it has one", () => {
    view.resize({ width: 0, height: 0 }, 1);
    view.resize({ width: 500, height: 400 }, 2);
    expect(view.canvas.width).toBe(1000);
    paint(view, []);
    expect(written.texts).toContain("Add");
  });

  it("is never shown blank when its size changes", () => {
    view.onPaint(() => paint(view, []));
    written.texts.length = 0;
    view.resize({ width: 800, height: 560 }, 1); // a notice takes a line
    expect(written.texts).toContain("Add"); // before the next frame
  });

  it("stands where it stood when it has been narrow for a moment", () => {
    const before = view.camera;
    for (const width of [300, 0, 120, 800]) view.resize({ width, height: 600 }, 1);
    expect(view.camera).toEqual(before);
    view.resize({ width: 120, height: 600 }, 1);
    view.look({ ...view.camera, y: 100 }, false); // from here the user has said where to stand
    const narrow = view.camera;
    view.resize({ width: 130, height: 600 }, 1);
    expect(view.camera.y).toBe(narrow.y);
  });

  it("draws what is in sight only", () => {
    view.look({ x: 0, y: 0, scale: 1 }, false);
    paint(view, []);
    expect(written.texts.filter((text) => text === "fp16").length).toBeLessThan(10);
  });

  it("tells the casts of a wire", () => {
    view.pick(layerBox(2));
    const wire = view.scene.wires.find(({ to }) => to === layerBox(3));
    expect(wire && castsOf(view, wire)).toEqual({ low: 0, int8: 0, high: 0 });
    const cast = new Uint8Array(store.model.structure.edges.from.length).fill(1);
    const figures = { ...source.figures(), cast };
    source.figures = () => figures;
    expect(wire && castsOf(view, wire)).toEqual({ low: 1, int8: 0, high: 0 });
    expect(wire && wireRows(store, wire).rows[0]?.text).toContain("cast to fp16");
  });

  it("traces the edges of what is selected, and fewer where a scope hides them", () => {
    const ends = (ways: number[][]): number[] => ways.map((points) => points.at(-1) as number);
    view.pick(layerBox(1)); // Sub: from the mean and the block's input, to Pow and Div
    expect(ends(trueEdgesOf(view))).toContain(view.scene.boxes[layerBox(2)]?.y);
    const before = trueEdgesOf(view).length;
    store.setOpen([]);
    view.select([1]);
    expect(trueEdgesOf(view).length).toBeLessThan(before);
  });

  it("greys what belongs to the plan before", () => {
    const fresh = view.facts.fill[0];
    view.pick(layerBox(0));
    press(" ");
    expect(store.stale).toBe(true);
    expect(view.facts.fill[0]).not.toBe(fresh);
  });

  it("sums up a scope", () => {
    const facts = view.facts.group(2); // the first block: two norms with two layers each that break
    expect(facts.layers).toBe(store.model.size[2]);
    expect(facts.brokenNow).toBe(4);
    expect(facts.worst).toBe(-Infinity);
    expect(Number.isFinite(facts.mean)).toBe(true);
    expect(view.facts.group(0).low).toBe(store.model.layers);
  });
});

describe("words", () => {
  it("say of a layer what is drawn of it", () => {
    expect(layerSentence(store, 2)).toBe("Pow blocks/0/norm1/Pow_2, fp16, accumulated error inf or NaN");
    const rows = layerRows(store, 2);
    expect(rows.find(({ label }) => label === "in fp16")?.text).toContain("overflow");
    expect(rows.some(({ text }) => text.includes("first layer that goes inf"))).toBe(true);
    expect(provenance(store).join()).toMatch(/emulated.*measured.*predicted/);
    const box = view.scene.boxes[view.scene.boxOfGroup(1)];
    expect(box && boxSentence(store, view.facts, box)).toContain("54 layers, 54 of 54 in fp16");
  });

  it("say what is not known, and never 0 for it", () => {
    const nan = new Float32Array(store.model.layers).fill(Number.NaN);
    const none = {
      acc_sqnr_db: nan,
      local_sqnr_db: nan,
      max_abs: nan,
      rms: nan,
      plan_us: nan,
      latency_us: nan,
      fp32_us: nan,
    };
    const elements = new Float64Array(store.model.layers);
    const figures = { ...source.figures(), ...none, elements };
    source.figures = () => figures;
    const text = layerRows(store, 2).map((row) => `${row.label}: ${row.text}`);
    expect(text).toContain("accumulated error: not known");
    expect(text.join("\n")).not.toMatch(/latency|exact values/);
  });

  it("say what switching a layer would cost and save, and by whose figures", () => {
    const would = (layer: number): string | undefined =>
      layerRows(store, layer).find((row) => row.label.startsWith("if in"))?.text;
    expect(would(9)).toBeUndefined();
    source.findFront();
    expect(would(9)).toMatch(/^It would take .* off the output error\. It would take 2.µs longer, casts included\.$/);
    expect(provenance(store).join()).toContain("switching: error predicted");
    const none = new Uint8Array(store.model.layers);
    source.figures().switchable.set(none);
    expect(would(9)).toBeUndefined();
  });

  it("fit into any width, with whole letters", () => {
    const context = view.context as CanvasRenderingContext2D;
    expect(fitText(context, "ReduceMean", 1000)).toBe("ReduceMean");
    expect(fitText(context, "ReduceMean", 30)).toBe("Redu…");
    expect(fitText(context, "ReduceMean", 3)).toBe("");
    expect(fitText(context, "😀😀😀😀", 30)).toBe("😀😀…");
    expect(oneLine("a\nb\u202ec\u0000d")).toBe("a b c d");
    expect(shortName("a/b/c")).toBe("c");
    expect(shortName("/")).toBe("/");
    expect(shortName("x".repeat(10_000)).length).toBeLessThan(200);
  });
});

describe("search and menu", () => {
  it("finds by name, op type, scope and source line, all words of the query", () => {
    const hay = haystack(store.model);
    expect(find(hay, "softmax").length).toBe(2);
    expect(find(hay, "BLOCKS/1 attention softmax").length).toBe(1);
    expect(find(hay, "model.py:40").length).toBeGreaterThan(0);
    expect(find(hay, "  ")).toEqual([]);
    expect(find(hay, "<script>")).toEqual([]);
  });

  it("offers what can be done with a layer, with counts", () => {
    view.pick(layerBox(2));
    const items = itemsFor(view).filter((item) => item !== null);
    expect(items.map(({ text }) => text)).toEqual([
      "Switch to fp32",
      "Keep in fp32",
      "Keep all Pow in fp32 (4 layers)",
      "Keep scope norm1 in fp32 (8 layers)",
      "Fold the scope around it",
      "Unfold all",
      "Fold all",
      "Copy name",
    ]);
    for (const item of items.slice(0, 4)) item.run();
    expect(edits()).toEqual([
      { op: "toggle", layers: [2] },
      { op: "allow", layers: [2] }, // the toggle before has kept it in fp32
      { op: "block_ops", ops: ["Pow"] },
      { op: "block_scope", path: "blocks/0/norm1" },
    ]);
  });

  it("changes nothing in a report, and says why", () => {
    view.dispose();
    start(true);
    view.pick(layerBox(2));
    const items = itemsFor(view).filter((item) => item !== null);
    expect(items.slice(0, 4).every(({ off }) => off.includes("report"))).toBe(true);
    press(" ");
    expect(source.asked).toEqual([]);
    expect(store.notice?.text).toContain("report");
  });
});
