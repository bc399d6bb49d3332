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
