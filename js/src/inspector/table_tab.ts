/** The tab Table: every layer, sorted, filtered, selected together with the graph. */
import { scaleFor } from "../colours";
import { h } from "../dom";
import type { Store } from "../store";
import { readTheme, watchTheme } from "../theme";
import { createColumnMenu } from "./column_menu";
import { COLUMNS, type Column } from "./columns";
import { download, toCsv } from "./csv";
import { createGrid, type Tint } from "./grid";
import { stem } from "./names";
import { count, plural } from "./numbers";
import type { Part } from "./part";
import { createPicking } from "./picking";
import { CHIPS, type Chip } from "./query";
import { filtered, type Sorting, sorted } from "./rows";
import { actions } from "./several";
import { button, refill } from "./ui";

const TYPING_MS = 120; // pause in typing after which the filter runs
let tables = 0;

export function createTableTab(store: Store): Part {
  const sorting: Sorting = { key: "index", down: false };
  const chips = new Set<Chip>();
  const chosen = new Map(COLUMNS.map((column) => [column.key, column.shown]));
  let rows: readonly number[] = [];
  let tint: Tint = () => "";
  let timer: ReturnType<typeof setTimeout> | undefined;

  const filter = h("input", {
    type: "search",
    class: "pe-i-filter",
    placeholder: "Filter: words, op:MatMul, acc<20, max>65504",
    "aria-label": "Filter the layers",
    spellcheck: "false",
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(list, TYPING_MS);
    },
  });
  const name = `${stem(store.model.structure.name)}.layers.csv`;
  const csv = button("CSV", () => download(name, toCsv(store, rows)), {
    title: "Download the layers that are listed, all columns",
    class: "pe-i-quiet",
  });
  const menu = createColumnMenu(store, chosen, list);
  const chipRow = h("div", { class: "pe-i-chips", role: "group", "aria-label": "Quick filters" });
  const words = h("span", { role: "status" });
  const tools = h("span", { class: "pe-i-row" });
  const grid = createGrid(store, `pe-i-row-${tables++}`, sortBy, (value, column) => tint(value, column));
  const picking = createPicking(store, grid, () => rows, drawStatus);
  const element = h(
    "div",
    { class: "pe-i-tabletab" },
    h("div", { class: "pe-i-toolbar" }, filter, menu.element, csv),
    chipRow,
    h("div", { class: "pe-i-status" }, words, tools),
    grid.element,
  );
  const unwatch = watchTheme(list);

  /** Lists the layers anew: filter, order, columns or figures changed. */
  function list(): void {
    const found = filtered(store, filter.value, chips);
    rows = sorting.key === "index" && !sorting.down ? found : sorted(store, found, sorting);
    const { dark } = readTheme(element);
    const [any, alone] = [scaleFor(store, "local", dark), scaleFor(store, "sensitivity", dark)];
    tint = (value, column) => (column.key === "sensitivity_db" ? alone : any).colour(value);
    const columns = COLUMNS.filter((column) => chosen.get(column.key) && column.there(store));
    grid.show(columns, rows, sorting);
    grid.element.classList.toggle("pe-i-stale", store.stale);
    drawStatus();
  }
  function sortBy(column: Column): void {
    sorting.down = sorting.key === column.key ? !sorting.down : column.first === "descending";
    sorting.key = column.key;
    list();
    grid.scrollTo(0);
  }
  function drawStatus(): void {
    const all = store.model.layers;
    const some = store.selection.size > 0 ? `, ${count(store.selection.size)} selected` : "";
    words.textContent = `${rows.length < all ? `${count(rows.length)} of ` : ""}${plural(all, "layer")}${some}`;
    const several = store.selection.size > 1 ? [...store.selection] : [];
    const able = several.filter((layer) => store.isSwitchable(layer));
    const low = able.filter((layer) => store.runsLow(layer)).length;
    const locked = able.filter((layer) => store.isBlacklisted(layer)).length;
    refill(tools, [rows.length, several, able.length, low, locked, store.state.format], () => [
      button("Select these", () => picking.select(rows, rows[0] ?? -1), {
        class: "pe-i-quiet",
        title: "Select all layers that are listed (Ctrl+A)",
        disabled: rows.length === 0,
        key: "select all",
      }),
      several.length > 0 ? actions(store, several) : null,
    ]);
  }
  function drawChips(): void {
    const labels: Record<Chip, string> = {
      broken: "broken",
      blacklisted: "blacklisted",
      fp32: "fp32",
      low: store.mixed ? "low" : store.state.format,
    };
    const counted = (Object.keys(labels) as Chip[]).map((chip): [Chip, number] => {
      let found = 0;
      for (let layer = 0; layer < store.model.layers; layer++) if (CHIPS[chip](store, layer)) found++;
      return [chip, found];
    });
    refill(chipRow, [labels, counted, [...chips]], () =>
      counted.map(([chip, found]) =>
        button(`${labels[chip]} ${count(found)}`, () => flip(chip), {
          class: "pe-i-chip",
          pressed: chips.has(chip),
          key: chip,
          disabled: found === 0 && !chips.has(chip),
        }),
      ),
    );
  }
  function flip(chip: Chip): void {
    if (!chips.delete(chip)) chips.add(chip);
    if (chip === "fp32") chips.delete("low"); // no layer has two formats
    if (chip === "low") chips.delete("fp32");
    drawChips();
    list();
  }

  return {
    element,
    update(topic) {
      if (topic === "preview") {
        grid.refresh(); // formats in sight; order and chips follow when a plan is set
        return;
      }
      if (topic === "selection") {
        if (picking.own) return;
        picking.moved();
        drawStatus();
      } else {
        menu.update();
        drawChips();
        list();
      }
      const row = topic === "data" ? -1 : rows.indexOf(store.focus);
      if (row >= 0) grid.scrollTo(row);
      else if (topic === "selection") grid.refresh();
    },
    dispose() {
      clearTimeout(timer);
      unwatch();
      menu.dispose();
      picking.dispose();
      grid.dispose();
      element.remove();
    },
  };
}
