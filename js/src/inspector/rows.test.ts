import { beforeEach, describe, expect, it } from "vitest";
import { Store } from "../store";
import { FakeSource, transformer } from "../testing/fixture";
import { COLUMNS } from "./columns";
import { numberField, textField, toCsv } from "./csv";
import { filtered, sorted } from "./rows";

let store: Store;
let source: FakeSource;
beforeEach(() => {
  source = new FakeSource(transformer(1));
  store = new Store(source);
});
const all = (): number[] => Array.from({ length: store.model.layers }, (_, layer) => layer);
const ops = (layers: number[]): string[] => [...new Set(layers.map((layer) => store.model.op(layer)))];

describe("sorting", () => {
  it("puts what is not finite before all figures, exact after them, and what is not known last, both ways", () => {
    const errors = source.figures().acc_sqnr_db;
    errors.fill(50);
    [errors[0], errors[1], errors[2], errors[3]] = [Number.NaN, 1 / 0, -1 / 0, 20];
    const up = sorted(store, all(), { key: "acc_sqnr_db", down: false });
    expect(up.slice(0, 3)).toEqual([2, 3, 4]);
    expect(up.slice(-2)).toEqual([1, 0]);
    const down = sorted(store, all(), { key: "acc_sqnr_db", down: true });
    expect(down[0]).toBe(1);
    expect(down.slice(-2)).toEqual([2, 0]);
  });

  it("keeps the order of execution among equals, and counts numbers in names", () => {
    expect(sorted(store, [5, 3, 4], { key: "format", down: true })).toEqual([3, 4, 5]);
    const ids = sorted(store, [2, 10], { key: "id", down: false }).map((layer) => store.model.name(layer));
    expect(ids).toEqual(["blocks/0/attention/MatMul_10", "blocks/0/norm1/Pow_2"]);
  });
});

describe("the filter", () => {
  it("understands op:, format:, comparisons and words, all of which must hold", () => {
    expect(ops(filtered(store, "op:pow", []))).toEqual(["Pow"]);
    expect(filtered(store, "format:fp32", [])).toEqual([]);
    expect(ops(filtered(store, "max>65504", []))).toEqual(["Pow", "Sqrt"]);
    expect(filtered(store, "max>65504 norm2 op:Sqrt", []).map((layer) => store.model.name(layer))).toEqual([
      "blocks/0/norm2/Sqrt_20",
    ]);
    expect(filtered(store, "local=-inf", [])).toEqual(filtered(store, "max>65504", []));
    expect(filtered(store, 'reason:"by default"', [])).toHaveLength(store.model.layers);
    expect(filtered(store, "#<=3", [])).toEqual([0, 1, 2]);
  });

  it("never finds what was not measured by a comparison", () => {
    source.figures().rms.fill(Number.NaN);
    expect([...filtered(store, "rms>0", []), ...filtered(store, "rms<=0", [])]).toEqual([]);
  });

  it("takes an unknown field as a word", () => {
    expect(filtered(store, "nonsense:1", [])).toEqual([]);
    expect(filtered(store, "", [])).toHaveLength(store.model.layers);
  });

  it("has chips for broken, blacklisted and formats", async () => {
    await store.edit({ op: "block", layers: [0, 1] });
    expect(filtered(store, "", ["blacklisted"])).toEqual([0, 1]);
    expect(filtered(store, "", ["fp32"])).toEqual([0, 1]);
    expect(filtered(store, "", ["low"])).toHaveLength(store.model.layers - 2);
    expect(ops(filtered(store, "", ["broken"]))).toEqual(["Pow", "Sqrt"]);
  });
});

describe("CSV", () => {
  it("quotes what needs it and disarms formulas, but leaves negative numbers numbers", () => {
    expect(textField('a,"b"\n')).toBe('"a,""b""\n"');
    for (const start of ["=", "+", "-", "@", "\t"]) expect(textField(`${start}1`)).toBe(`"'${start}1"`);
    expect([numberField(-3.5), numberField(-1 / 0), numberField(Number.NaN)]).toEqual(["-3.5", "-inf", ""]);
  });

  it("has what the search found, with where it comes from, once there is a front", () => {
    source.findFront();
    const lines = toCsv(store, [0]).split("\r\n");
    const head = lines[0]?.split(",") ?? [];
    const figure = (name: string): number => Number(lines[1]?.split(",")[head.indexOf(name)]);
    expect(figure("saves_us")).toBeCloseTo(-0.9);
    expect(figure("costs")).toBeGreaterThan(0);
    expect(head.slice(-3)).toEqual(["sensitivity_provenance", "costs_provenance", "saves_provenance"]);
    expect(lines[1]).toMatch(/noise model of 212 measured tensors,predicted: roofline of H100$/);
  });

  it("has every column that holds something, every layer that is listed, and where figures come from", () => {
    const lines = toCsv(store, [2, 0]).trimEnd().split("\r\n");
    const head = lines[0]?.split(",") ?? [];
    expect(lines).toHaveLength(3);
    expect(head).toContain("acc_rel_l2");
    expect(head).not.toContain("sensitivity_db"); // nothing was searched yet
    expect(head.length).toBe(COLUMNS.filter((column) => column.there(store)).length + 3);
    expect(lines[1]).toMatch(/^3,Pow,blocks\/0\/norm1\/Pow_2,fp16,fp16,,-inf,/);
    expect(lines[1]).toContain("roofline of H100");
  });
});
