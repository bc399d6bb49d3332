/** Picking rows of the table by mouse and keys: what is picked there is what the whole panel has selected. */
import type { Store } from "../store";
import type { Grid } from "./grid";

export interface Picking {
  /** Selects layers for the whole panel. */
  select(layers: readonly number[], focus: number): void;
  /** The selection was changed elsewhere: a range begins there. */
  moved(): void;
  /** Whether the change of selection that is being told was made here. */
  readonly own: boolean;
  dispose(): void;
}

/** Returns the picking of a grid; `rows` are the layers as listed, `picked` is called after each change. */
export function createPicking(store: Store, grid: Grid, rows: () => readonly number[], picked: () => void): Picking {
  let anchor = -1; // where a range with shift begins
  let own = false;
  const change = (apply: () => void): void => {
    own = true;
    apply();
    own = false;
    grid.refresh();
    picked();
  };
  const select = (layers: readonly number[], focus: number): void => change(() => store.select(layers, focus));
  const range = (to: number): readonly number[] => {
    const [from, end] = [rows().indexOf(anchor), rows().indexOf(to)];
    return from < 0 ? [to] : rows().slice(Math.min(from, end), Math.max(from, end) + 1);
  };
  const act = (op: "toggle" | "block" | "allow"): void => {
    const layers = [...store.selection].filter((layer) => store.isSwitchable(layer));
    if (layers.length > 0) void store.edit({ op, layers });
  };

  const clicked = (event: MouseEvent): void => {
    const target = event.target as Element;
    const line = target.closest<HTMLElement>("[data-layer]");
    if (!line || target.closest("button")) return; // the badge toggles, and selects nothing
    const layer = Number(line.dataset.layer);
    if (event.shiftKey && anchor >= 0) {
      select(range(layer), layer);
      return;
    }
    anchor = layer;
    if (!event.ctrlKey && !event.metaKey) {
      change(() => store.reveal(layer)); // the graph shows it too
      return;
    }
    const next = new Set(store.selection);
    if (!next.delete(layer)) next.add(layer);
    select([...next], next.has(layer) ? layer : ([...next].pop() ?? -1));
  };

  const steps: Record<string, (row: number) => number> = {
    ArrowDown: (row) => row + 1,
    ArrowUp: (row) => row - 1,
    PageDown: (row) => row + grid.page,
    PageUp: (row) => row - grid.page,
    Home: () => 0,
    End: () => rows().length - 1,
  };
  const step = (key: string, extend: boolean): boolean => {
    const next = steps[key];
    if (!next || rows().length === 0) return false;
    const row = Math.min(rows().length - 1, Math.max(0, next(rows().indexOf(store.focus))));
    const layer = rows()[row] as number;
    if (!extend) anchor = layer;
    else if (anchor < 0) anchor = store.focus >= 0 ? store.focus : layer;
    select(extend ? range(layer) : [layer], layer);
    grid.scrollTo(row);
    return true;
  };
  const command = (key: string): boolean => {
    if (store.focus < 0) return false;
    if (key === "Enter") {
      store.reveal(store.focus);
      store.setTab("layer");
    } else if (key === " ") act("toggle");
    else if (key === "b") act([...store.selection].every((layer) => store.isBlacklisted(layer)) ? "allow" : "block");
    else return false;
    return true;
  };
  const handle = (event: KeyboardEvent): boolean => {
    if (step(event.key, event.shiftKey)) return true;
    const control = event.ctrlKey || event.metaKey;
    if (!control && !event.altKey) return command(event.key);
    if (!control || event.key !== "a") return false;
    select(rows(), store.focus >= 0 ? store.focus : (rows()[0] ?? -1));
    return true;
  };
  const pressed = (event: KeyboardEvent): void => {
    if (event.target !== grid.element || !handle(event)) return; // keys on a header or a badge are theirs
    event.preventDefault();
    event.stopPropagation();
  };
  grid.element.addEventListener("click", clicked);
  grid.element.addEventListener("keydown", pressed);
  return {
    select,
    moved() {
      anchor = store.focus;
    },
    get own() {
      return own;
    },
    dispose() {
      grid.element.removeEventListener("click", clicked);
      grid.element.removeEventListener("keydown", pressed);
    },
  };
}
