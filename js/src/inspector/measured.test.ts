// @vitest-environment jsdom
import { beforeEach, describe, expect, it } from "vitest";
import type { Kernel } from "../protocol";
import { Store } from "../store";
import { FakeSource, transformer } from "../testing/fixture";
import { calibrationSection } from "./calibration";
import { COLUMNS } from "./columns";
import { formatChoice } from "./format_choice";
import { kernelPart, measuredSection } from "./measured";

const KERNEL: Kernel = { name: "myelin 1", layers: [8, 9, 10], us: 7, kind: "layer", format: "fp32", note: "" };
const COPY: Kernel = { name: "reformat 1", layers: [12], us: 1, kind: "reformat", format: "fp16", note: "" };

let source: FakeSource;
let store: Store;

beforeEach(() => {
  source = new FakeSource(transformer(2));
  store = new Store(source);
});

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
const buttons = (element: HTMLElement | null): [string, string | null, boolean][] =>
  [...(element?.querySelectorAll("button") ?? [])].map((one) => [
    one.textContent ?? "",
    one.getAttribute("aria-pressed"),
    one.disabled,
  ]);

describe("choice of a format", () => {
  it("offers what each layer can have, and sets it", async () => {
    const choice = formatChoice(store, [8]);
    expect(buttons(choice)).toEqual([
      ["fp32", "false", false],
      ["fp16", "true", false],
      ["int8", "false", false],
    ]);
    choice?.querySelectorAll("button")[2]?.click();
    await settled();
    expect(source.asked.at(-1)).toEqual({ kind: "edit", ask: { edit: { op: "use", format: "int8", layers: [8] } } });
    expect(buttons(formatChoice(store, [8]))[2]).toEqual(["int8", "true", false]);
    expect(buttons(formatChoice(store, [0]))[2]).toEqual(["int8", "false", true]);
  });

  it("of several layers sets those that can", () => {
    formatChoice(store, [0, 8, 9])?.querySelectorAll("button")[2]?.click();
    expect(source.asked.at(-1)?.ask).toEqual({ edit: { op: "use", format: "int8", layers: [8, 9] } });
  });

  it("is none where a toggle says it all, or nothing can be changed", () => {
    const { state } = source;
    source.state = () => ({ ...state(), uses: ["fp16"] });
    expect(formatChoice(store, [8])).toBeNull();
    expect(formatChoice(new Store(new FakeSource(transformer(1), true)), [8])).toBeNull();
  });
});

describe("calibration", () => {
  it("is shown where int8 is, and made anew by another method", async () => {
    expect(calibrationSection(store, new Map())).toBeNull();
    await store.edit({ op: "use", format: "int8", layers: [8] });
    const section = calibrationSection(store, new Map());
    expect(section?.textContent).toContain("percentile 99.99 over 360 samples");
    expect(buttons(section).map(([text, pressed]) => [text, pressed])).toEqual([
      ["minmax", "false"],
      ["percentile", "true"],
      ["entropy", "false"],
    ]);
    section?.querySelectorAll("button")[2]?.click();
    expect(source.asked.at(-1)).toEqual({ kind: "calibrate", ask: { method: "entropy" } });
  });
});

describe("measured latency", () => {
  it("tells the whole apart from the sum, what stands between layers, and what ran in another format", () => {
    expect(measuredSection(store, new Map())).toBeNull();
    source.measure([KERNEL, COPY]);
    const text = measuredSection(store, new Map())?.textContent ?? "";
    for (const part of [
      "37",
      "41",
      "1 kernel of several layers",
      "Between layers: 1 kernel",
      "3 layers ran in another",
    ])
      expect(text).toContain(part);
    expect(text).toContain("asked fp16, ran fp32");
    expect(text).toContain("measured: TensorRT 11.4 on a fixture");
  });

  it("says why a plan cannot be measured", () => {
    source.measure([], "This device does not compute in fp16.");
    expect(measuredSection(store, new Map())?.textContent).toContain("This device does not compute in fp16.");
  });

  it("of a layer names its kernel and who shares it", () => {
    source.measure([KERNEL, COPY]);
    const text = kernelPart(store, 9)
      .map((part) => (part === "" ? "" : part.textContent))
      .join(" ");
    expect(text).toContain("myelin 1, in fp32");
    expect(text).toContain("Asked fp16, ran fp32");
    expect(text).toContain("together with 2 layers");
    expect(kernelPart(store, 12)).toEqual([]);
  });

  it("has columns in the table once it is known", () => {
    const column = (key: string) => COLUMNS.find((one) => one.key === key);
    expect(column("kernel")?.there(store)).toBe(false);
    source.measure([KERNEL]);
    expect(column("kernel")?.there(store)).toBe(true);
    expect(column("ran")?.value(store, 9)).toBe("fp32");
    expect(column("shares")?.value(store, 9)).toBe([8, 10].map((layer) => store.model.name(layer)).join(", "));
    expect(column("kernel")?.value(store, 0)).toBe("");
  });
});
