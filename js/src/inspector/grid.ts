/** The rows of the table that are in sight: ten thousand layers, a few dozen elements, reused as one scrolls. */
import { h } from "../dom";
import type { Store } from "../store";
import type { Column } from "./columns";
import { headAndTail, shorten, tip } from "./names";
import { badge, icon } from "./ui";

export const ROW_PX = 26;
const HEAD_PX = 30;
const SPARE = 6; // rows drawn beyond each edge, so that fast scrolling shows no gap
const TAIL = 13; // characters at an id's end that a narrow column still shows
const UNSEEN_PX = 400; // height where there is no layout yet

export interface Grid {
  readonly element: HTMLElement;
  /** Shows these layers, in this order. */
  show(columns: readonly Column[], layers: readonly number[], sorting: { key: string; down: boolean }): void;
  /** Draws the rows in sight again: figures, formats or selection changed. */
  refresh(): void;
  /** Brings a row into sight, and draws again. */
  scrollTo(row: number): void;
  readonly page: number; // rows that fit
  dispose(): void;
}

/** Returns the colour of an error in a column. */
export type Tint = (value: number, column: Column) => string;

export function createGrid(store: Store, id: string, sort: (column: Column) => void, tint: Tint): Grid {
  const head = h("div", { class: "pe-i-thead", role: "row", "aria-rowindex": 1 });
  const space = h("div", { class: "pe-i-tbody", role: "rowgroup" });
  const element = h(
    "div",
    { class: "pe-i-table", role: "grid", tabindex: 0, "aria-label": "Layers", "aria-multiselectable": "true" },
    h("div", { role: "rowgroup", class: "pe-i-theads" }, head),
    space,
  );
  let columns: readonly Column[] = [];
  let layers: readonly number[] = [];
  let pool: HTMLElement[] = [];
  let frame = 0;
  let version = 0; // of what rows show: one that is on screen already is left alone
  const drawn = new WeakMap<HTMLElement, string>();

  const inSight = (): number => Math.max(ROW_PX, (element.clientHeight || UNSEEN_PX) - HEAD_PX);
  const draw = (): void => {
    const first = Math.max(0, Math.floor(element.scrollTop / ROW_PX) - SPARE);
    const last = Math.min(layers.length, Math.ceil((element.scrollTop + inSight()) / ROW_PX) + SPARE);
    while (pool.length < last - first) {
      const row = h("div", { class: "pe-i-tr", role: "row" });
      pool.push(row);
      space.append(row);
    }
    // Row r always stands in element r mod pool: a scroll by one line fills one element anew, and moves none.
    const used = new Set<HTMLElement>();
    for (let row = first; row < last; row++) {
      const line = pool[row % pool.length] as HTMLElement;
      used.add(line);
      fillRow(line, row);
    }
    for (const line of pool) line.hidden = !used.has(line);
    const active = `${id}-${store.focus}`;
    if ([...used].some((line) => line.id === active)) element.setAttribute("aria-activedescendant", active);
    else element.removeAttribute("aria-activedescendant");
  };
  const fillRow = (line: HTMLElement, row: number): void => {
    const key = `${row} ${version} ${pool.length}`;
    if (drawn.get(line) === key) return;
    drawn.set(line, key);
    const layer = layers[row] as number;
    line.id = `${id}-${layer}`;
    line.dataset.layer = String(layer);
    line.setAttribute("aria-rowindex", String(row + 2));
    line.setAttribute("aria-selected", String(store.selection.has(layer)));
    line.classList.toggle("pe-i-focus", store.focus === layer);
    line.style.transform = `translateY(${row * ROW_PX}px)`;
    line.replaceChildren(...columns.map((column) => fillCell(column, layer)));
  };
  const fillCell = (column: Column, layer: number): HTMLElement => {
    const value = column.value(store, layer);
    const cell = h("div", {
      class: `pe-i-td pe-i-td-${column.kind}`,
      role: column.kind === "id" ? "rowheader" : "gridcell",
    });
    if (column.kind === "format") cell.append(badge(store, layer));
    else if (column.kind === "id") {
      const [first, last] = headAndTail(String(value), TAIL);
      cell.title = tip(String(value));
      cell.append(
        ...(first ? [h("span", { class: "pe-i-head" }, first)] : []),
        h("span", { class: "pe-i-tail" }, last),
      );
    } else if (typeof value === "string") {
      cell.textContent = shorten(value, 120);
      cell.title = tip(value);
    } else numberCell(cell, column, value);
    return cell;
  };
  const numberCell = (cell: HTMLElement, column: Column, value: number): void => {
    const text = column.text(value);
    if (column.kind === "error" && !Number.isNaN(value)) {
      const bar = h("span", { class: "pe-i-tint", "aria-hidden": "true" });
      bar.style.background = tint(value, column);
      cell.append(bar);
    }
    if (text === "inf/NaN" || text === "infinite") cell.append(icon("stop"));
    if (Number.isNaN(value) || text === "0") cell.classList.add("pe-i-none");
    cell.append(h("span", {}, text));
  };
  const header = (sorting: { key: string; down: boolean }): void => {
    const held =
      document.activeElement instanceof HTMLElement && head.contains(document.activeElement)
        ? document.activeElement.dataset.key
        : undefined;
    head.replaceChildren(
      ...columns.map((column) => {
        const on = column.key === sorting.key;
        const press = h(
          "button",
          { type: "button", "data-key": column.key, title: column.title, tabindex: -1, onclick: () => sort(column) },
          column.label,
        );
        return h(
          "div",
          {
            class: `pe-i-th pe-i-td-${column.kind}`,
            role: "columnheader",
            "aria-sort": on ? (sorting.down ? "descending" : "ascending") : "none",
          },
          press,
        );
      }),
    );
    for (const press of head.querySelectorAll("button")) {
      press.tabIndex = 0;
      if (press.dataset.key === held) press.focus({ preventScroll: true });
    }
  };
  const redraw = (): void => {
    version++;
    draw();
  };
  const scrolled = (): void => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  element.addEventListener("scroll", scrolled, { passive: true });
  const sizes = typeof ResizeObserver === "function" ? new ResizeObserver(scrolled) : null;
  sizes?.observe(element);

  return {
    element,
    get page() {
      return Math.max(1, Math.floor(inSight() / ROW_PX) - 1);
    },
    show(nextColumns, nextLayers, sorting) {
      columns = nextColumns;
      layers = nextLayers;
      // The id takes what is left of the width; all others have their own.
      const tracks = columns.map((column) =>
        column.kind === "id" ? `minmax(${column.width}px, 1fr)` : `${column.width}px`,
      );
      element.style.setProperty("--pe-i-tracks", tracks.join(" "));
      element.style.setProperty("--pe-i-width", `${columns.reduce((sum, column) => sum + column.width, 0)}px`);
      element.setAttribute("aria-rowcount", String(layers.length + 1));
      element.setAttribute("aria-colcount", String(columns.length));
      space.style.height = `${layers.length * ROW_PX}px`;
      header(sorting);
      redraw();
    },
    refresh: redraw,
    scrollTo(row) {
      const top = row * ROW_PX;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (top + ROW_PX > element.scrollTop + inSight()) element.scrollTop = top + ROW_PX - inSight();
      redraw();
    },
    dispose() {
      cancelAnimationFrame(frame);
      element.removeEventListener("scroll", scrolled);
      sizes?.disconnect();
      pool = [];
      element.remove();
    },
  };
}
