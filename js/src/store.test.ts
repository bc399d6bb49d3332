import { describe, expect, it } from "vitest";
import type { Source } from "./source";
import { Store } from "./store";
import { FakeSource, transformer } from "./testing/fixture";

describe("store", () => {
  it("tells what changes on the graph from what is only the progress of a run", async () => {
    const fake = new FakeSource(transformer(1), false, 5);
    let progress = {};
    let changed = (): void => undefined;
    const source: Source = Object.assign(Object.create(fake) as Source, {
      state: () => ({ ...fake.state(), ...progress }),
      onChange: (watcher: () => void) => {
        changed = watcher;
        return fake.onChange(watcher);
      },
    });
    const store = new Store(source);
    let told = 0;
    store.on("data", () => {
      told += 1;
    });
    const before = store.version;
    const pending = store.edit({ op: "toggle", layers: [2] });
    expect(store.formatOf(2)).toBe("fp32"); // at once, before any answer
    expect(store.stale).toBe(true);
    expect(store.version).toBeGreaterThan(before);
    await pending;
    const answered = store.version;
    progress = { run: { ...fake.state().run, state: "running", done: 1, total: 4 } };
    changed();
    expect(store.version).toBe(answered);
    expect(told).toBeGreaterThanOrEqual(3);
    store.dispose();
  });

  it("expects of a blocked scope all its parts, and nothing of layers that cannot switch", () => {
    const made = transformer(2);
    made.groups.path[made.groups.path.indexOf("blocks/1/norm1")] = "blocks/0/norm1"; // entered twice
    const source = new FakeSource(made);
    source.figures().switchable[0] = 0;
    const store = new Store(source);
    void store.edit({ op: "block_scope", path: "blocks/0/norm1" });
    const expected = made.layers.id.flatMap((_, layer) => (store.formatOf(layer) === "fp32" ? [layer] : []));
    expect(expected).not.toContain(0);
    expect(expected.length).toBeGreaterThan(8);
  });

  it("changes nothing where nothing can be changed, and says why", async () => {
    const source = new FakeSource(transformer(1), true);
    const store = new Store(source);
    await store.edit({ op: "toggle", layers: [0] });
    expect(source.asked).toEqual([]);
    expect(store.notice?.text).toBe(source.readOnlyBecause);
  });
});

describe("a preview", () => {
  const low = (store: Store): number[] =>
    Array.from({ length: store.model.layers }, (_, layer) => layer).filter((layer) => store.runsLow(layer));

  it("stands for the plan in whatever is drawn of a layer, and changes nothing", async () => {
    const source = new FakeSource(transformer(1));
    source.findFront();
    const store = new Store(source);
    source.figures().blacklisted.fill(1);
    const answer = await source.request("budget", { error: 5e-4 });
    const preview = { ...answer, names: source.figures().formats, budget: 5e-4, taken: false };
    const heard: string[] = [];
    store.on("preview", () => heard.push("preview"));
    store.on("data", () => heard.push("data"));
    const version = store.version;
    store.setPreview(preview);
    expect(low(store)).toEqual([...answer.format].flatMap((format, layer) => (format === 2 ? [layer] : [])));
    expect(low(store).some((layer) => store.isBlacklisted(layer))).toBe(false);
    expect(store.coloured).toBe("format");
    expect(store.version).toBe(version + 1);
    store.setPreview({ ...preview, format: answer.format.slice(), budget: 6e-4 });
    expect(store.version).toBe(version + 1); // no layer looks other than before
    expect(heard).toEqual(["preview", "preview"]);
    store.setPreview(null);
    expect(low(store)).toHaveLength(store.model.layers);
    expect(store.coloured).toBe("accumulated");
    expect(store.version).toBe(version + 2);
    expect(source.asked.map(({ kind }) => kind)).toEqual(["budget"]);
  });

  it("gives way to an edit, which is one of the plan that is set", () => {
    const source = new FakeSource(transformer(1));
    source.findFront();
    const store = new Store(source);
    const format = new Uint8Array(store.model.layers).fill(1);
    const names = source.figures().formats;
    const rest = { predicted_error: 0, latency_us: null, low_share: 0, seconds: 0 };
    store.setPreview({ format, names, budget: 1e-6, taken: false, ...rest });
    void store.edit({ op: "toggle", layers: [3] });
    expect(store.preview).toBeNull();
    expect(store.formatOf(3)).toBe("fp32"); // it ran low, though the preview had it in fp32 already
    expect(store.formatOf(4)).toBe("fp16");
  });

  it("is asked for nowhere in a report", async () => {
    const source = new FakeSource(transformer(1), true);
    const store = new Store(source);
    await store.take({ error: 1e-3 });
    await store.search();
    await store.stopSearch();
    expect(source.asked).toEqual([]);
    expect(store.notice?.text).toBe(source.readOnlyBecause);
  });
});
