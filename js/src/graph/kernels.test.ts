// @vitest-environment jsdom
import { beforeEach, describe, expect, it } from "vitest";
import type { Kernel } from "../protocol";
import { Store } from "../store";
import { columnLayout } from "../testing/column";
import { FakeSource, transformer } from "../testing/fixture";
import { boxSentence, groupRows, layerRows, wireRows } from "./describe";
import { kernelFrames } from "./kernels";
import { handleKey } from "./keyboard";
import { itemsFor } from "./menu";
import { View } from "./view";
import { castsOf } from "./wires";

const QUERY = 8; // the first MatMul of block 0's attention; 9 and 10 beside it
const KERNEL: Kernel = { name: "myelin 1", layers: [8, 9, 10], us: 7, kind: "layer", format: "fp32", note: "" };
const COPY: Kernel = { name: "reformat 1", layers: [12], us: 1, kind: "reformat", format: "fp16", note: "" };
const PARTS = { search() {}, keys() {}, menu() {}, boxMode() {}, clear() {} };

let source: FakeSource;
let store: Store;
let view: View;

beforeEach(() => {
  source = new FakeSource(transformer(2));
  store = new Store(source);
  store.setOpen(store.model.structure.groups.label.keys());
  view = new View(document.createElement("div"), document.createElement("canvas"), store, columnLayout(store.model));
});

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
const texts = (): string[] => itemsFor(view).flatMap((item) => (item ? [item.text] : []));
const press = (key: string): boolean => handleKey(view, PARTS, new KeyboardEvent("keydown", { key }));

describe("int8 beside the plan's format", () => {
  it("is given by 8, and taken by 8 again", async () => {
    view.select([QUERY, QUERY + 1, 0]); // the norm's mean cannot run in int8
    expect(press("8")).toBe(true);
    expect([QUERY, QUERY + 1, 0].map((layer) => store.formatOf(layer))).toEqual(["int8", "int8", "fp16"]);
    await settled();
    expect(store.formatOf(QUERY)).toBe("int8");
    expect(store.runsLow(QUERY)).toBe(true);
    expect(store.mixed).toBe(true);
    press("8");
    await settled();
    expect(store.formatOf(QUERY)).toBe("fp16");
    expect(store.mixed).toBe(false);
  });

  it("is refused in words where no layer can have it", () => {
    view.select([0]);
    press("8");
    expect(store.notice?.text).toContain("int8");
    expect(source.asked.filter(({ kind }) => kind === "edit")).toEqual([]);
    const { state } = source;
    source.state = () => ({ ...state(), format: "tf32", uses: ["tf32"] });
    view.select([QUERY]);
    press("8");
    expect(store.notice?.text).toContain("tf32");
  });

  it("stands in the menu of a layer, its op type and its scope", () => {
    view.pick(view.scene.boxOf(QUERY));
    expect(texts()).toContain("Run in int8");
    expect(texts().some((text) => /^Run all MatMul in int8 \(\d+ layers\)$/.test(text))).toBe(true);
    expect(texts().some((text) => text.startsWith("Run scope attention in int8"))).toBe(true);
    view.pick(view.scene.boxOf(0));
    expect(texts().filter((text) => text.includes("int8") && !text.includes("scope"))).toEqual([]);
  });

  it("is counted apart in scopes, and quantised tensors are told", async () => {
    await store.edit({ op: "use", format: "int8", layers: [QUERY] });
    view.refresh();
    const group = store.model.groupOf(QUERY);
    const held = view.facts.group(group);
    expect([held.low, held.int8]).toEqual([6, 1]);
    const rows = groupRows(store, view.facts, group);
    expect(rows.map((row) => row.text)).toContain("5 in fp16, 1 in int8");
    const box = view.scene.boxes.find((one) => one.kind === "group" && one.group === group);
    expect(box && boxSentence(store, view.facts, box)).toContain("6 of 6 in a low format");
    const wire = view.scene.wires.find(({ to }) => to === view.scene.boxOf(QUERY));
    expect(wire && castsOf(view, wire)).toEqual({ low: 0, int8: 1, high: 0 });
    expect(wire && wireRows(store, wire).rows[0]?.text).toContain("cast to int8");
  });

  it("toggles to fp32 like any low format", async () => {
    await store.edit({ op: "use", format: "int8", layers: [QUERY] });
    void store.edit({ op: "toggle", layers: [QUERY] });
    expect(store.formatOf(QUERY)).toBe("fp32");
  });
});

describe("kernels that were measured", () => {
  it("frame the boxes of their layers, with the wires between them; one box needs none", () => {
    expect(view.kernels).toEqual([]);
    source.measure([KERNEL, COPY, { ...KERNEL, name: "alone", layers: [0] }]);
    view.refresh();
    expect(view.kernels.map((frame) => frame.kernel.name)).toEqual(["myelin 1"]);
    const boxes = [8, 9, 10].map((layer) => view.scene.boxOf(layer));
    expect(view.kernels[0]?.boxes).toEqual(boxes);
    for (const at of view.kernels[0]?.wires ?? []) {
      const wire = view.scene.wires[at];
      expect([wire?.from, wire?.to].every((end) => boxes.includes(end as number))).toBe(true);
    }
    store.setOpen([]);
    view.relayout();
    expect(kernelFrames(view)).toEqual([]);
  });

  it("tell a layer's fellows and what it really ran in", () => {
    source.measure([KERNEL, COPY]);
    expect(store.kernel(9)?.name).toBe("myelin 1");
    expect(store.kernel(12)).toBeNull(); // a reformat computes nothing
    expect(store.overruled(9)).toBe("fp32");
    view.refresh();
    expect([view.facts.overruled[9], view.facts.overruled[12]]).toEqual([1, 0]);
    const rows = layerRows(store, 9).map((row) => row.text);
    expect(rows).toContain("myelin 1, with 2 more");
    expect(rows).toContain("fp32, decided was fp16");
  });

  it("are selected whole by the menu", () => {
    source.measure([KERNEL]);
    view.refresh();
    view.pick(view.scene.boxOf(9));
    const item = itemsFor(view).find((one) => one?.text === "Select what its kernel computes (3 layers)");
    item?.run();
    expect([...store.selection]).toEqual([8, 9, 10]);
  });

  it("grey shares of latency until they are there", () => {
    store.setColour("latency");
    view.refresh();
    const fresh = view.facts.fill[0];
    const figures = { ...source.figures(), latencyStandsIn: true };
    source.figures = () => figures;
    view.refresh();
    expect(view.facts.old).toBe(true);
    expect(view.facts.fill[0]).not.toBe(fresh);
    store.setColour("format");
    view.refresh();
    expect(view.facts.old).toBe(false);
  });
});
