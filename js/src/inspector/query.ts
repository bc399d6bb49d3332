/** What the filter of the table understands: words, op:MatMul, format:fp16, acc<20, max>65504. */
import type { Store } from "../store";
import { COLUMNS } from "./columns";
import { visible } from "./names";

/** Short names of columns, as users would write them. */
const NAMES: Record<string, string> = {
  local: "local_sqnr_db",
  acc: "acc_sqnr_db",
  accumulated: "acc_sqnr_db",
  sensitivity: "sensitivity_db",
  saves: "saves_us",
  cost: "costs",
  max: "max_abs",
  latency: "latency_us",
  share: "latency_share",
  "#": "index",
};
const PERCENT = new Set(["latency_share"]); // written as 5, meant as 5 %
const TESTS: Record<string, (left: number, right: number) => boolean> = {
  ">": (left, right) => left > right,
  "<": (left, right) => left < right,
  ">=": (left, right) => left >= right,
  "<=": (left, right) => left <= right,
  "=": (left, right) => left === right,
};

export type Chip = "broken" | "blacklisted" | "fp32" | "low";
export type Test = (layer: number) => boolean;

/** Returns a test for each part of the filter's text; a part that is no condition is a word to be found anywhere. */
export function parseQuery(text: string, store: Store): Test[] {
  return (text.match(/(?:[^\s"]|"[^"]*")+/g) ?? []).map((part) => {
    const field = /^([a-z#_ ]+):(.+)$/i.exec(part);
    const words = field && textTest((field[1] ?? "").toLowerCase(), unquote(field[2] ?? ""), store);
    if (words) return words;
    const figure = /^([a-z#_0-9]+)(>=|<=|>|<|=)([+-]?(?:inf|[0-9.]+(?:e[+-]?[0-9]+)?))$/i.exec(part);
    const number = figure && numberTest((figure[1] ?? "").toLowerCase(), figure[2] ?? "", figure[3] ?? "", store);
    return number ?? anywhere(unquote(part), store);
  });
}

function unquote(text: string): string {
  return text.replaceAll('"', "").toLowerCase();
}

function textTest(key: string, wanted: string, store: Store): Test | null {
  const column = COLUMNS.find((one) => one.key === key && ["op", "id", "format", "words"].includes(one.kind));
  if (!column) return null;
  return (layer) => String(column.value(store, layer)).toLowerCase().includes(wanted);
}

function numberTest(key: string, sign: string, figure: string, store: Store): Test | null {
  const name = NAMES[key] ?? key;
  const column = COLUMNS.find((one) => one.key === name && ["index", "error", "number"].includes(one.kind));
  const test = TESTS[sign];
  if (!column || !test) return null;
  const limit =
    (/inf/i.test(figure) ? (figure.startsWith("-") ? -1 : 1) * Number.POSITIVE_INFINITY : Number(figure)) /
    (PERCENT.has(name) ? 100 : 1);
  return (layer) => test(column.value(store, layer) as number, limit);
}

const haystacks = new WeakMap<Store, string[]>();

function anywhere(wanted: string, store: Store): Test {
  let texts = haystacks.get(store);
  if (!texts) {
    const { model } = store;
    texts = model.structure.layers.id.map((id, layer) => visible(`${id}\n${model.op(layer)}`).toLowerCase());
    haystacks.set(store, texts);
  }
  const found = texts;
  return (layer) => (found[layer] ?? "").includes(wanted) || store.reasonOf(layer).toLowerCase().includes(wanted);
}

/** Returns whether a layer's result is not finite: under the plan, or alone where the plan was not measured. */
export function isBroken(store: Store, layer: number): boolean {
  const { acc_sqnr_db: accumulated, local_sqnr_db: local } = store.figures;
  const under = accumulated[layer] ?? Number.NaN;
  return (Number.isNaN(under) ? local[layer] : under) === Number.NEGATIVE_INFINITY;
}

export const CHIPS: Record<Chip, (store: Store, layer: number) => boolean> = {
  broken: isBroken,
  blacklisted: (store, layer) => store.isBlacklisted(layer),
  fp32: (store, layer) => store.formatOf(layer) === "fp32",
  low: (store, layer) => store.runsLow(layer),
};
