/** What is drawn of each layer and each scope, worked out once after every change of data, colour or theme. */
import { type Scale, scaleFor, unknownColour } from "../colours";
import type { Model } from "../model";
import type { Quantity, Store } from "../store";
import { inkOn, mix, type Theme } from "../theme";

/** inf/NaN: `now` in the present plan; `alone` if only this layer ran low. */
export type Broken = "no" | "alone" | "now";

export interface GroupFacts {
  layers: number;
  low: number;
  int8: number; // of those, beside another low format
  switchable: number;
  blacklisted: number;
  brokenNow: number;
  brokenAlone: number;
  worst: number; // of the chosen quantity; NaN: not known, or categories differ
  mean: number; // of the finite ones
  known: number; // layers that the quantity is known of
  total: number; // of latency: sum of shares
  fill: string;
  ink: string;
}

export interface Facts {
  readonly scale: Scale;
  readonly stale: boolean;
  /** What is coloured is not of this plan, or stands in for what is still being measured. */
  readonly old: boolean;
  readonly low: Uint8Array;
  readonly int8: Uint8Array; // in int8, in a plan of another low format
  readonly overruled: Uint8Array; // measured in another format than decided
  readonly locked: Uint8Array;
  readonly switchable: Uint8Array;
  readonly broken: readonly Broken[];
  readonly fill: readonly string[];
  readonly ink: readonly string[];
  group(group: number): GroupFacts;
}

/** Share of grey that is mixed into colours that belong to an older plan. */
const STALE = 0.6;

/** Quantities that a change of the plan makes old; the others are true at once. */
export function dependsOnRun(quantity: Quantity): boolean {
  return quantity === "accumulated" || quantity === "local";
}

export function isBroken(store: Store, layer: number): Broken {
  const { acc_sqnr_db, local_sqnr_db } = store.figures;
  if (acc_sqnr_db[layer] === Number.NEGATIVE_INFINITY) return "now";
  return local_sqnr_db[layer] === Number.NEGATIVE_INFINITY ? "alone" : "no";
}

export function createFacts(store: Store, theme: Theme): Facts {
  const scale = scaleFor(store, store.coloured, theme.dark);
  const stale = store.stale || store.preview !== null; // errors are of the plan that is set
  const standsIn = scale.quantity === "latency" && store.figures.latencyStandsIn;
  const old = standsIn || (stale && dependsOnRun(scale.quantity));
  const grey = unknownColour(theme.dark);
  const shades = new Map<string, { fill: string; ink: string }>();
  const shade = (colour: string): { fill: string; ink: string } => {
    let made = shades.get(colour);
    if (!made) {
      const fill = old ? mix(colour, grey, STALE) : colour;
      made = { fill, ink: inkOn(fill) };
      shades.set(colour, made);
    }
    return made;
  };
  const count = store.model.layers;
  const facts = {
    scale,
    stale,
    old,
    int8: new Uint8Array(count),
    overruled: new Uint8Array(count),
    low: new Uint8Array(count),
    locked: new Uint8Array(count),
    switchable: new Uint8Array(count),
    broken: new Array<Broken>(count),
    fill: new Array<string>(count),
    ink: new Array<string>(count),
  };
  for (let layer = 0; layer < count; layer++) {
    facts.low[layer] = store.runsLow(layer) ? 1 : 0;
    facts.int8[layer] = store.state.format !== "int8" && store.formatOf(layer) === "int8" ? 1 : 0;
    facts.overruled[layer] = !store.preview && store.overruled(layer) ? 1 : 0;
    facts.locked[layer] = store.isBlacklisted(layer) ? 1 : 0;
    facts.switchable[layer] = store.isSwitchable(layer) ? 1 : 0;
    facts.broken[layer] = isBroken(store, layer);
    const { fill, ink } = shade(scale.missing ? grey : scale.fill(layer));
    facts.fill[layer] = fill;
    facts.ink[layer] = ink;
  }
  let groups: GroupFacts[] | undefined;
  return {
    ...facts,
    group(group) {
      groups ??= gather(store.model, facts, shade, grey);
      return groups[group] ?? emptyGroup(grey);
    },
  };
}

function emptyGroup(fill: string): GroupFacts {
  return {
    layers: 0,
    low: 0,
    int8: 0,
    switchable: 0,
    blacklisted: 0,
    brokenNow: 0,
    brokenAlone: 0,
    worst: Number.NaN,
    mean: 0,
    known: 0,
    total: 0,
    fill,
    ink: inkOn(fill),
  };
}

function gather(
  model: Model,
  facts: Omit<Facts, "group">,
  shade: (colour: string) => { fill: string; ink: string },
  grey: string,
): GroupFacts[] {
  const { scale } = facts;
  const { parent } = model.structure.groups;
  const groups = parent.map(() => emptyGroup(grey));
  const finite = new Float64Array(groups.length);
  const mixed = new Uint8Array(groups.length); // of categories
  for (let layer = 0; layer < model.layers; layer++) {
    const at = model.groupOf(layer);
    const group = groups[at];
    if (!group) continue;
    group.layers += 1;
    group.low += facts.low[layer] ?? 0;
    group.int8 += facts.int8[layer] ?? 0;
    group.switchable += facts.switchable[layer] ?? 0;
    group.blacklisted += (facts.locked[layer] ?? 0) & (facts.switchable[layer] ?? 0);
    if (facts.broken[layer] === "now") group.brokenNow += 1;
    else if (facts.broken[layer] === "alone") group.brokenAlone += 1;
    const value = scale.missing ? Number.NaN : scale.value(layer);
    if (Number.isNaN(value)) continue;
    if (scale.kind === "categorical" && group.known > 0 && group.worst !== value) mixed[at] = 1;
    group.worst = group.known > 0 ? scale.worse(group.worst, value) : value;
    group.known += 1;
    if (Number.isFinite(value)) {
      finite[at] = (finite[at] as number) + 1;
      group.mean += value;
      group.total += value;
    }
  }
  // Children come after their parents: from the last, each hands on what it holds.
  for (let at = groups.length - 1; at > 0; at--) {
    const above = parent[at] as number;
    const [from, to] = [groups[at] as GroupFacts, groups[above] as GroupFacts];
    for (const key of [
      "layers",
      "low",
      "int8",
      "switchable",
      "blacklisted",
      "brokenNow",
      "brokenAlone",
      "mean",
      "total",
    ] as const) {
      to[key] += from[key];
    }
    if (mixed[at] || (from.known > 0 && to.known > 0 && from.worst !== to.worst)) mixed[above] = 1;
    if (from.known > 0) to.worst = to.known > 0 ? scale.worse(to.worst, from.worst) : from.worst;
    to.known += from.known;
    finite[above] = (finite[above] as number) + (finite[at] as number);
  }
  groups.forEach((group, at) => {
    group.mean = (finite[at] as number) > 0 ? group.mean / (finite[at] as number) : Number.NaN;
    if (scale.kind === "categorical" && mixed[at]) group.worst = Number.NaN;
    Object.assign(group, shade(Number.isNaN(group.worst) ? grey : scale.colour(group.worst)));
  });
  return groups;
}
