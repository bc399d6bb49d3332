/** A summary of the selected layers, when there are several. */
import { h } from "../dom";
import type { Store } from "../store";
import { formatChoice } from "./format_choice";
import { totalLatency } from "./layer_figures";
import { visible } from "./names";
import { duration, plural, share, sqnr } from "./numbers";
import type { Part } from "./part";
import { button, layerLink, pairs, refill, section } from "./ui";

const WORST = 5;
const OPS = 8;

export function createSeveral(store: Store, folded: Map<string, boolean>): Part {
  const element = h("div", { class: "pe-i-several" });
  return {
    element,
    update() {
      const chosen = [...store.selection].sort((a, b) => a - b);
      const formats = tally(chosen.map((layer) => store.formatOf(layer)));
      const key = [
        chosen,
        formats,
        store.stale,
        store.figures.errorsRevision,
        store.figures.latencyProvenance,
        store.state.revision,
      ];
      refill(element, key, () => [
        h(
          "header",
          { class: "pe-i-header" },
          h("div", { class: "pe-i-title" }, h("h2", {}, plural(chosen.length, "layer"))),
          actions(store, chosen),
        ),
        summary(store, chosen, formats, folded),
        worstSection(store, chosen, folded),
      ]);
    },
    dispose: () => element.remove(),
  };
}

/** Returns buttons that act on many layers at once; none where nothing can be changed. */
export function actions(store: Store, layers: number[]): HTMLElement | null {
  if (store.source.readOnly) return null;
  const able = layers.filter((layer) => store.isSwitchable(layer));
  if (able.length === 0) return h("p", { class: "pe-i-small" }, "None of them can run in another format.");
  const low = able.some((layer) => store.runsLow(layer));
  const edit = (op: "toggle" | "block" | "allow"): void => void store.edit({ op, layers: able });
  return h(
    "div",
    { class: "pe-i-row" },
    formatChoice(store, able),
    button(`Toggle to ${low ? "fp32" : store.state.format}`, () => edit("toggle"), { key: "toggle all" }),
    button("Block", () => edit("block"), {
      key: "block all",
      title: "Put all on the blacklist",
      disabled: able.every((layer) => store.isBlacklisted(layer)),
    }),
    button("Allow", () => edit("allow"), {
      key: "allow all",
      title: "Take all off the blacklist",
      disabled: !able.some((layer) => store.isBlacklisted(layer)),
    }),
  );
}

/** Returns how often each word stands in a list, most frequent first. */
export function tally(words: string[]): [string, number][] {
  const found = new Map<string, number>();
  for (const word of words) found.set(word, (found.get(word) ?? 0) + 1);
  return [...found].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0], "en"));
}

function summary(
  store: Store,
  chosen: number[],
  formats: [string, number][],
  folded: Map<string, boolean>,
): HTMLElement {
  const f = store.figures;
  const ops = tally(chosen.map((layer) => store.model.op(layer)));
  const more = ops.length > OPS ? `, ${plural(ops.length - OPS, "more type")}` : "";
  const blocked = chosen.filter((layer) => store.isBlacklisted(layer)).length;
  const known = chosen.map((layer) => f.latency_us[layer] ?? Number.NaN).filter((us) => !Number.isNaN(us));
  const spent = known.reduce((sum, us) => sum + us, 0);
  return section(
    "What they are",
    folded,
    pairs(
      [
        "op types",
        ops
          .slice(0, OPS)
          .map(([op, times]) => `${visible(op)} ${times}`)
          .join(", ") + more,
      ],
      ["formats", formats.map(([format, times]) => `${format === "none" ? "no floats" : format} ${times}`).join(", ")],
      blocked > 0 && ["blacklisted", plural(blocked, "layer")],
      known.length > 0 && ["latency", `${duration(spent)}, ${share(spent / totalLatency(f))} of all layers`],
    ),
  );
}

/** Returns layers by accumulated error, those that are not finite first; what was not measured is left out. */
export function worst(store: Store, layers: readonly number[], wanted: number): number[] {
  const errors = store.figures.acc_sqnr_db;
  const known = layers.filter(
    (layer) => !Number.isNaN(errors[layer] ?? Number.NaN) && errors[layer] !== Number.POSITIVE_INFINITY,
  );
  return known.sort((a, b) => (errors[a] as number) - (errors[b] as number) || a - b).slice(0, wanted);
}

export function worstList(store: Store, layers: number[]): HTMLElement {
  return h(
    "ol",
    { class: store.stale ? "pe-i-worst pe-i-stale" : "pe-i-worst" },
    ...layers.map((layer) =>
      h(
        "li",
        {},
        h("span", { class: "pe-i-op" }, visible(store.model.op(layer))),
        layerLink(store, layer),
        h("span", { class: "pe-i-figure" }, sqnr(store.figures.acc_sqnr_db[layer] ?? Number.NaN)),
      ),
    ),
  );
}

function worstSection(store: Store, chosen: number[], folded: Map<string, boolean>): HTMLElement | null {
  const found = worst(store, chosen, WORST);
  return found.length > 0 ? section("Largest accumulated error", folded, worstList(store, found)) : null;
}
