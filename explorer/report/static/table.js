// The layer table: sorted and filtered as a list of row numbers, of which one page at a time becomes DOM.
// Names come from the model and may hold anything: they enter the page by textContent only.
"use strict";
(() => {
  const PRINTED = 500; // rows on paper; the CSV file has them all
  const TAIL = 20; // characters at a name's end that are never cut: they tell layers of one block apart
  const TYPING_MS = 120; // pause in typing after which the filter runs
  const SVG = "http://www.w3.org/2000/svg";
  const MINUS = "\u2212";
  const SUPERSCRIPT = { "-": "\u207b", 0: "\u2070", 1: "\u00b9", 2: "\u00b2", 3: "\u00b3", 4: "\u2074", 5: "\u2075", 6: "\u2076", 7: "\u2077", 8: "\u2078", 9: "\u2079" };
  const data = JSON.parse(document.getElementById("data-layers").textContent);
  const byId = (id) => document.getElementById(id);
  const broken = new Set(data.broken);
  const alone = new Set(data.alone);
  const total = data.names.length;
  const word = (key, row) => data.words[key].list[data.words[key].rows[row]];
  const figure = (key, row) => data.figures[key][row];
  const idOf = (row) => (data.ids ?? data.names)[row];
  const unmeasured = new Set(data.unmeasured);
  const isBroken = (key, row) => (key === "acc" ? broken.has(row) : key === "local" && alone.has(row));

  const columns = [
    { key: "row", label: "#", kind: "row" },
    { key: "name", label: "layer", kind: "name" },
    { key: "op", label: "op", kind: "word" },
    { key: "format", label: "format", kind: "word" },
    ...data.columns.filter((column) => !column.detail),
    { key: "reason", label: "reason", kind: "word" },
  ];
  const worstFirst = new Set(["count", "time", "number"]); // a first click shows the largest; of SQNR the smallest
  const state = { sort: "row", down: false, page: 0, size: 100, rows: [], open: new Set(), shown: -1 };

  // Numbers as explorer/report/text.py writes them.
  function number(value) {
    if (value === "inf" || value === "-inf") return value === "inf" ? "infinite" : `${MINUS}infinite`;
    if (value === 0) return "0";
    const exponent = Math.floor(Math.log10(Math.abs(value)));
    if (exponent >= -3 && exponent < 6) return Number(value.toPrecision(3)).toLocaleString("en").replace("-", MINUS);
    const mantissa = Number((value / 10 ** exponent).toFixed(2));
    return `${mantissa} \u00d7 10${[...String(exponent)].map((digit) => SUPERSCRIPT[digit]).join("")}`.replace("-", MINUS);
  }
  function time(us) {
    const [scale, unit] = us < 1e3 ? [1, "\u00b5s"] : us < 1e6 ? [1e-3, "ms"] : [1e-6, "s"];
    return `${number(us * scale)} ${unit}`;
  }
  function show(column, row) {
    const value = figure(column.key, row);
    if (column.kind === "db") {
      if (isBroken(column.key, row) || value === "-inf") return ["not finite", "stop"];
      if (value === null) return [unmeasured.has(row) ? "not measured" : "\u2013", "none"];
      return value === "inf" ? ["exact", ""] : [`${value.toFixed(1).replace("-", MINUS)} dB`, ""];
    }
    if (value === null) return ["\u2013", "none"];
    if (column.kind === "count") return [value === "inf" ? "infinite" : value.toLocaleString("en"), value === 0 ? "none" : ""];
    if (column.kind === "time") return [time(value), ""];
    return [number(value), value === "inf" ? "stop" : ""];
  }

  // Sorting: what was not measured comes last, whichever way; not finite is worse than any figure.
  function sortKey(column, row) {
    if (column.kind === "row") return row;
    if (column.kind === "name") return data.names[row].toLowerCase();
    if (column.kind === "word") return word(column.key, row).toLowerCase();
    if (isBroken(column.key, row)) return -Infinity;
    const value = figure(column.key, row);
    return value === "inf" ? Infinity : value === "-inf" ? -Infinity : value;
  }
  function sorted(rows) {
    const column = columns.find((item) => item.key === state.sort);
    const keys = new Map(rows.map((row) => [row, sortKey(column, row)]));
    const sign = state.down ? -1 : 1;
    return rows.sort((left, right) => {
      const a = keys.get(left);
      const b = keys.get(right);
      if (a === b) return left - right;
      if (a === null) return 1;
      if (b === null) return -1;
      return a < b ? -sign : sign;
    });
  }

  let haystack = null;
  function matches(row, needle, op, format, which) {
    if (op && word("op", row) !== op) return false;
    if (format && word("format", row) !== format) return false;
    if (which === "broken" && !broken.has(row)) return false;
    if (which === "alone" && !alone.has(row)) return false;
    if (which === "finite" && broken.has(row)) return false;
    if (which === "unmeasured" && !unmeasured.has(row)) return false;
    return !needle || haystack[row].includes(needle);
  }

  function refilter() {
    const needle = byId("filter-text").value.trim().toLowerCase();
    if (needle && haystack === null) {
      haystack = data.names.map((name, row) => [name, idOf(row), word("op", row), word("scope", row), word("reason", row), word("note", row)].join("\n").toLowerCase());
    }
    const chosen = ["op", "format", "state"].map((key) => byId(`filter-${key}`).value);
    const kept = [];
    for (let row = 0; row < total; row += 1) if (matches(row, needle, ...chosen)) kept.push(row);
    state.rows = sorted(kept);
    state.page = 0;
    render();
  }

  function element(tag, className, words) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (words !== undefined) node.textContent = words;
    return node;
  }
  function icon(name) {
    const node = document.createElementNS(SVG, "svg");
    node.setAttribute("class", `icon ${name}`);
    node.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#icon-${name}`);
    node.append(use);
    return node;
  }
  const formatBadge = (words) => element("span", words === data.low ? "format low" : "format", words);

  function cell(column, row) {
    if (column.kind === "row") return element("td", "number", (row + 1).toLocaleString("en"));
    if (column.kind === "name") return nameCell(row);
    if (column.kind === "word") {
      const words = word(column.key, row);
      const node = element("td", column.key === "format" ? "" : column.key, column.key === "format" ? undefined : words);
      if (column.key === "format") node.append(formatBadge(words));
      else node.title = words.slice(0, 400);
      return node;
    }
    const [words, mark] = show(column, row);
    const node = element("td", mark === "none" ? "number none" : "number", words);
    if (mark === "stop") node.prepend(icon("stop"));
    return node;
  }
  function nameCell(row) {
    const head = element("th");
    head.scope = "row";
    const button = element("button", "name");
    button.type = "button";
    button.dataset.row = row;
    button.title = data.names[row].slice(0, 400);
    button.setAttribute("aria-expanded", String(state.open.has(row)));
    const mark = element("span", "mark", "\u203a");
    mark.setAttribute("aria-hidden", "true");
    const name = shorten(data.names[row]);
    const near = name.indexOf("/", name.length - TAIL); // the tail starts at a part of the path where there is one
    const cut = near >= 0 ? near : Math.max(0, name.length - TAIL);
    const whole = element("span", "whole");
    whole.append(element("span", "head", name.slice(0, cut)), element("span", "tail", name.slice(cut)));
    button.append(mark, whole);
    head.append(button);
    return head;
  }
  /** Shortens a long name in its middle: its two ends tell most. */
  const shorten = (name) => (name.length <= 72 ? name : `${name.slice(0, 36)}\u2026${name.slice(-35)}`);

  function detailRow(row) {
    const line = element("tr", "more");
    const box = element("td");
    box.colSpan = columns.length;
    const list = element("dl", "pairs");
    const add = (label, words) => { if (words) list.append(element("dt", "", label), element("dd", "", words)); };
    add("Name", data.names[row]);
    if (data.ids) add("Id", data.ids[row]);
    add("Scope", word("scope", row));
    add("Why this format", word("reason", row));
    add("Note", word("note", row));
    add("Fused with", word("fused_with", row));
    for (const column of data.columns) if (column.detail && figure(column.key, row) !== null) add(column.label[0].toUpperCase() + column.label.slice(1), show(column, row)[0]);
    add("Provenance of the errors", word("provenance", row));
    if (byId("pe-root")) list.append(element("dt", "", "Graph"), showInGraph(row));
    box.append(list);
    line.append(box);
    return line;
  }
  function showInGraph(row) {
    const cell = element("dd");
    const button = element("button", "", "Show in the graph");
    button.type = "button";
    button.addEventListener("click", () => {
      document.dispatchEvent(new CustomEvent("show-layer", { detail: row }));
      byId("graph").scrollIntoView();
    });
    cell.append(button);
    return cell;
  }
  function tableRow(row) {
    const line = element("tr", [broken.has(row) ? "broken" : "", state.shown === row ? "shown" : ""].join(" ").trim());
    line.append(...columns.map((column) => cell(column, row)));
    return line;
  }

  function render(limit = state.size) {
    const from = state.page * state.size;
    const rows = state.rows.slice(from, from + limit);
    const body = document.createDocumentFragment();
    for (const row of rows) {
      body.append(tableRow(row));
      if (state.open.has(row)) body.append(detailRow(row));
    }
    byId("layer-table").tBodies[0].replaceChildren(body);
    const pages = Math.max(1, Math.ceil(state.rows.length / state.size));
    const few = state.rows.length < total ? ` of ${total.toLocaleString("en")}` : "";
    byId("table-status").textContent = `${state.rows.length.toLocaleString("en")}${few} ${total === 1 ? "layer" : "layers"}${rows.length < state.rows.length ? `, showing ${(from + 1).toLocaleString("en")} to ${(from + rows.length).toLocaleString("en")}` : ""}`;
    byId("page-now").textContent = `Page ${(state.page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
    byId("page-first").disabled = byId("page-back").disabled = state.page === 0;
    byId("page-next").disabled = byId("page-last").disabled = state.page >= pages - 1;
    for (const head of byId("layer-table").tHead.rows[0].cells) {
      head.setAttribute("aria-sort", head.dataset.key !== state.sort ? "none" : state.down ? "descending" : "ascending");
    }
  }

  function header() {
    const line = element("tr");
    for (const column of columns) {
      const head = element("th", ["row", "db", "number", "count", "time"].includes(column.kind) ? "number" : "");
      head.scope = "col";
      head.dataset.key = column.key;
      const button = element("button", "", column.kind === "time" ? `${column.label} time` : column.label);
      button.type = "button";
      button.addEventListener("click", () => {
        state.down = state.sort === column.key ? !state.down : worstFirst.has(column.kind);
        state.sort = column.key;
        state.rows = sorted(state.rows);
        state.page = 0;
        render();
      });
      head.append(button);
      line.append(head);
    }
    byId("layer-table").tHead.append(line);
  }
  function choices(key) {
    const used = new Map();
    for (const index of data.words[key].rows) used.set(index, (used.get(index) ?? 0) + 1);
    const list = [...used].map(([index, count]) => [data.words[key].list[index], count]);
    list.sort(([left], [right]) => left.localeCompare(right, "en"));
    for (const [words, count] of list) {
      const option = element("option", "", `${shorten(words)} (${count.toLocaleString("en")})`);
      option.value = words;
      byId(`filter-${key}`).append(option);
    }
  }
  function turn(page) {
    state.page = Math.min(Math.max(0, page), Math.max(0, Math.ceil(state.rows.length / state.size) - 1));
    render();
    byId("layer-table").parentElement.scrollTop = 0;
  }

  header();
  choices("op");
  choices("format");
  let timer = 0;
  byId("filter-text").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(refilter, TYPING_MS); });
  for (const key of ["op", "format", "state"]) byId(`filter-${key}`).addEventListener("change", refilter);
  const form = document.querySelector(".filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(refilter)); // the fields are cleared after this event
  byId("page-first").addEventListener("click", () => turn(0));
  byId("page-back").addEventListener("click", () => turn(state.page - 1));
  byId("page-next").addEventListener("click", () => turn(state.page + 1));
  byId("page-last").addEventListener("click", () => turn(Infinity));
  byId("page-size").addEventListener("change", (event) => { state.size = Number(event.target.value); turn(0); });
  byId("layer-table").addEventListener("click", (event) => {
    const button = event.target.closest("button.name");
    if (!button) return;
    const row = Number(button.dataset.row);
    const line = button.closest("tr");
    if (state.open.delete(row)) line.nextElementSibling.remove();
    else {
      state.open.add(row);
      line.after(detailRow(row));
    }
    button.setAttribute("aria-expanded", String(state.open.has(row)));
  });
  document.addEventListener("open-layer", (event) => {
    const row = event.detail;
    if (!(row >= 0 && row < total)) return;
    if (!state.rows.includes(row)) {
      for (const key of ["text", "op", "format", "state"]) byId(`filter-${key}`).value = ""; // the filter hides the layer
      refilter();
    }
    state.shown = row;
    state.open.add(row);
    turn(Math.floor(state.rows.indexOf(row) / state.size));
    const button = byId("layer-table").querySelector(`button[data-row="${row}"]`);
    button.scrollIntoView({ block: "center" });
    button.focus({ preventScroll: true });
  });
  addEventListener("beforeprint", () => { state.page = 0; render(PRINTED); });
  addEventListener("afterprint", () => render());
  if (data.timing) byId("table-timing").append("Times: ", element("span", `provenance ${data.timing.split(" ")[0]}`, data.timing));
  refilter();
})();
