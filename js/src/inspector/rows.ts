/** Which layers the table shows, and in what order. */
import type { Store } from "../store";
import { COLUMNS, type Column } from "./columns";
import { CHIPS, type Chip, parseQuery } from "./query";

export interface Sorting {
  key: string;
  down: boolean;
}

/** Returns the layers that pass the filter's text and all chips, in execution order. */
export function filtered(store: Store, text: string, chips: Iterable<Chip>): number[] {
  const tests = [...parseQuery(text, store), ...[...chips].map((chip) => (layer: number) => CHIPS[chip](store, layer))];
  const found: number[] = [];
  for (let layer = 0; layer < store.model.layers; layer++) {
    if (tests.every((test) => test(layer))) found.push(layer);
  }
  return found;
}

/** Returns the layers sorted by a column; what is not known comes last, whichever way. */
export function sorted(store: Store, layers: readonly number[], { key, down }: Sorting): number[] {
  const column = COLUMNS.find((one) => one.key === key) as Column;
  const values = new Map(layers.map((layer) => [layer, column.value(store, layer)]));
  const unknown = (value: number | string | undefined): boolean => value === "" || Number.isNaN(value);
  const collator = new Intl.Collator("en", { numeric: true });
  return [...layers].sort((a, b) => {
    const [left, right] = [values.get(a), values.get(b)];
    if (unknown(left) || unknown(right)) return Number(unknown(left)) - Number(unknown(right)) || a - b;
    const order =
      typeof left === "string"
        ? collator.compare(left, String(right))
        : left === right
          ? 0
          : (left as number) < (right as number)
            ? -1
            : 1;
    return (down ? -order : order) || a - b;
  });
}
