/** The table as a CSV file, made in the browser: all columns, figures in full. */
import type { Store } from "../store";
import { COLUMNS, type Column } from "./columns";

const FORMULA = /^[=+\-@\t\r]/; // how a spreadsheet tells that a cell is to be computed

/** Returns a text as one CSV field that no spreadsheet computes. */
export function textField(text: string): string {
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Returns a figure as one CSV field; empty where it is not known. */
export function numberField(value: number): string {
  if (Number.isNaN(value)) return "";
  return Number.isFinite(value) ? String(value) : value > 0 ? "inf" : "-inf";
}

/** Returns the table as CSV: every column that has something, and how the figures came to be. */
export function toCsv(store: Store, layers: readonly number[]): string {
  const columns = COLUMNS.filter((column) => column.there(store));
  const f = store.figures;
  const sources = {
    error_provenance: f.errorProvenance,
    range_provenance: f.rangeProvenance,
    latency_provenance: f.latencyProvenance,
    ...(f.sensitivity_db.length > 0 && { sensitivity_provenance: store.state.search.error_provenance }),
    ...(f.costs.length > 0 && { costs_provenance: store.state.search.error_provenance }),
    ...(f.saves_us.length > 0 && { saves_provenance: store.state.search.latency_provenance }),
  };
  const field = (column: Column, layer: number): string => {
    const value = column.value(store, layer);
    return typeof value === "number" ? numberField(value) : textField(value);
  };
  const tail = Object.values(sources).map(textField);
  const lines = layers.map((layer) => [...columns.map((column) => field(column, layer)), ...tail].join(","));
  const head = [...columns.map((column) => column.key), ...Object.keys(sources)].join(",");
  return `${[head, ...lines].join("\r\n")}\r\n`;
}

/** Offers a text to the user as a file. */
export function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link); // a link outside the document is not followed everywhere
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url)); // the browser reads it after this turn
}
