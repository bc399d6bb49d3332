/** The tab Trade-off: the front that the search found and every plan that was tried, each to be set with a click. */
import { type Chart, createChart } from "../charts/chart";
import { type Axes, type Clicked, type Front, type FrontMark, type Point, tradeoffSpec } from "../charts/tradeoff";
import { h } from "../dom";
import type { FrontPoint, SearchState, Tried } from "../protocol";
import type { Store } from "../store";
import { shorten, visible } from "./names";
import { count, duration, errorWithDb, float, share } from "./numbers";
import type { Part } from "./part";
import { errorOf, frontTable, triedTable } from "./plan_tables";
import { createSearchPanel } from "./search_panel";
import { refill, section } from "./ui";

const HEIGHT_PX = 280;
const ORIGIN = 32; // characters of an axis' title: some CPUs have long names
const PREVIEW_MS = 80; // the chart follows a drag this often: the graph needs the frames more

export function createTradeoffTab(store: Store): Part {
  const choice: Pick<Axes, "x" | "y"> = { x: "latency", y: "error" };
  const folded = new Map<string, boolean>();
  const searching = createSearchPanel(store);
  const controls = h("div", { class: "pe-i-row pe-i-axes" });
  const place = h("div");
  const keys = h("div");
  const note = h("p", { class: "pe-i-small" });
  const best = h("div");
  const tried = h("div");
  const element = h("div", { class: "pe-i-scroll" }, searching.element, controls, place, keys, note, best, tried);
  let chart: Chart | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;

  /** Draws the plans that have both figures; returns how many have not. */
  const draw = (): number => {
    const { state, preview } = store;
    const axes = axesOf(state.tried, state.search, choice);
    const all = state.tried.map((plan) => pointOf(plan, axes));
    const points = all.filter(({ x, y }) => !Number.isNaN(x) && !Number.isNaN(y));
    const marks = state.search.points
      .map((point) => markOf(point, axes, state.search))
      .filter(({ x, predicted, measured }) => !Number.isNaN(x) && !(Number.isNaN(predicted) && Number.isNaN(measured)));
    if (points.length + marks.length === 0) {
      chart?.dispose();
      chart = null;
      return 0;
    }
    if (!chart) {
      chart = createChart(
        store.source,
        "Plans: cost against error; the lists beneath have the same figures",
        HEIGHT_PX,
        clicked,
      );
      place.replaceChildren(chart.element);
    }
    const look = preview && {
      x: axes.x === "share" ? preview.low_share : float(preview.latency_us),
      y: axes.y === "error" ? float(preview.predicted_error) : Number.NaN,
      budget: axes.y === "error" ? preview.budget : Number.NaN,
    };
    const front: Front = { marks, stale: state.search.stale !== "", preview: look };
    chart.draw((theme) => tradeoffSpec(points, front, axes, theme));
    return all.length - points.length;
  };
  const goto = (index: number): void => {
    if (!store.state.tried.some((plan) => plan.index === index && plan.current))
      void store.edit({ op: "goto", tried: index });
  };
  const take = (index: number): void => {
    const { search } = store.state;
    if (search.stale) store.say(`The front does not fit any more: ${search.stale}. Search again.`);
    else if (!search.points.some((point) => point.index === index && point.current)) void store.take({ point: index });
  };
  const clicked = (customdata: unknown): void => {
    const [kind, index] = String(customdata as Clicked).split(" ");
    if (kind === "front") take(Number(index));
    else goto(Number(index));
  };
  const part: Part = {
    element,
    update(topic) {
      if (topic === "preview") {
        timer ??= setTimeout(() => {
          timer = undefined;
          draw();
        }, PREVIEW_MS);
      }
      const { state } = store;
      const { search, revision } = state;
      const { points } = search;
      const able = [store.source.readOnly, search.stale, store.taking !== null];
      searching.update();
      refill(controls, [choices(state.tried, search), choice], () => [
        axisSelect("across", choices(state.tried, search).x, choice, "x"),
        axisSelect("up", choices(state.tried, search).y, choice, "y"),
      ]);
      refill(note, [state.tried, points, search.stale, choice], () => [missing(draw(), choice)]);
      refill(keys, [points.length > 0, state.tried.length > 0], () => [
        legend(points.length > 0, state.tried.length > 0),
      ]);
      refill(best, [points, able], () =>
        points.length === 0
          ? []
          : [section(`Best plans (${count(points.length)})`, folded, frontTable(store, points, take), sources(search))],
      );
      refill(tried, [state.tried, revision, store.source.readOnly, state.run.state], () => [
        state.tried.length > 0
          ? section(
              "Plans tried",
              folded,
              triedTable(store, state.tried, goto),
              sourcesOf(state.tried.flatMap((plan) => [plan.error_provenance, plan.latency_provenance])),
            )
          : empty(store),
      ]);
    },
    dispose() {
      clearTimeout(timer);
      chart?.dispose();
      searching.dispose();
      element.remove();
    },
  };
  return part;

  function axisSelect<K extends "x" | "y">(
    label: string,
    options: [Axes[K], string][],
    held: Pick<Axes, K>,
    key: K,
  ): HTMLElement | null {
    if (options.length < 2) return null;
    const chosen = h(
      "select",
      {
        "data-key": key,
        onchange: () => {
          held[key] = options[chosen.selectedIndex]?.[0] as Axes[K];
          part.update();
        },
      },
      ...options.map(([value, text]) => h("option", { selected: value === held[key] }, text)),
    );
    return h("label", { class: "pe-i-field" }, h("span", {}, label), chosen);
  }
}

const known = (value: number): boolean => !Number.isNaN(value);

/** Returns what can be drawn along each axis: latency and accuracy only where some plan has them. */
function choices(tried: Tried[], { points }: SearchState): { x: [Axes["x"], string][]; y: [Axes["y"], string][] } {
  const plans = [...tried, ...points];
  const latency = plans.some((plan) => known(float(plan.latency_us)));
  const metric = plans.some((plan) => known(float(plan.metric)));
  return {
    x: [...(latency ? ([["latency", "latency"]] as [Axes["x"], string][]) : []), ["share", "share run low"]],
    y: [["error", "output error"], ...(metric ? ([["metric", "accuracy"]] as [Axes["y"], string][]) : [])],
  };
}

/** Returns the axes to draw: what was chosen, or what there is. */
export function axesOf(tried: Tried[], search: SearchState, choice: Pick<Axes, "x" | "y">): Axes {
  const can = choices(tried, search);
  const x = can.x.some(([value]) => value === choice.x) ? choice.x : "share";
  const y = can.y.some(([value]) => value === choice.y) ? choice.y : "error";
  const timed = tried.filter((plan) => known(float(plan.latency_us))).map((plan) => plan.latency_provenance);
  const found = search.points.some((point) => known(float(point.latency_us))) ? [search.latency_provenance] : [];
  const latency = origins([...timed, ...found]);
  const errors = origins(tried.map((plan) => plan.error_provenance));
  return {
    x,
    y,
    xTitle: x === "share" ? "share of layers in the low format" : `latency${latency}`,
    yTitle: y === "metric" ? "accuracy" : `output error, relative L2${errors}`,
  };
}

/** Returns how figures came to be, as short as an axis wants it; the lists beneath have it in full. */
function origins(provenances: string[]): string {
  const different = [...new Set(provenances.filter(Boolean).map(originOf))];
  if (different.length === 0) return "";
  return `, ${different.length === 1 ? visible(different[0] as string) : "of several origins"}`;
}

/** Returns the kind of a provenance, and the device that it names: "predicted, H100-SXM", "emulated". */
export function originOf(provenance: string): string {
  const [, kind = provenance, model, here] = /^(\w+)(?: \(roofline, ([^)]+)\)| on ([^,]+))?/.exec(provenance) ?? [];
  const device = model ?? here;
  return shorten(device === undefined ? kind : `${kind}, ${device}`, ORIGIN);
}

export function pointOf(plan: Tried, axes: Axes): Point {
  const [error, metric, us] = [errorOf(plan.sqnr_db), float(plan.metric), float(plan.latency_us)];
  const hover = [
    visible(shorten(plan.label, 60)),
    known(error)
      ? `error ${errorWithDb(error)}${plan.error_provenance && `, ${plan.error_provenance}`}`
      : "error not measured",
    ...costLines(plan, metric, us, plan.latency_provenance),
  ];
  return {
    index: plan.index,
    x: axes.x === "share" ? plan.low_share : us,
    y: axes.y === "metric" ? metric : error,
    current: plan.current,
    hover,
  };
}

export function markOf(point: FrontPoint, axes: Axes, search: SearchState): FrontMark {
  const [predicted, measured] = [float(point.predicted_error), float(point.error)];
  const [metric, us] = [float(point.metric), float(point.latency_us)];
  const hover = [
    visible(shorten(point.label, 60)),
    known(measured) ? `error ${errorWithDb(measured)}, as its run gave it` : "not run yet",
    known(predicted) && `error ${errorWithDb(predicted)}, predicted`,
    ...costLines(point, metric, us, search.latency_provenance),
    point.current ? "this plan is set" : "click to take it",
  ].filter((line) => line !== false);
  return {
    index: point.index,
    x: axes.x === "share" ? point.low_share : us,
    predicted: axes.y === "error" ? predicted : Number.NaN,
    measured: axes.y === "error" ? measured : metric,
    hover,
  };
}

function costLines(plan: Tried | FrontPoint, metric: number, us: number, provenance: string): string[] {
  return [
    known(metric) && `accuracy ${share(metric)}`,
    known(us) && `latency ${duration(us)}${provenance && ` (${provenance})`}`,
    `${share(plan.low_share)} in the low format${plan.casts === null ? "" : `, ${count(plan.casts)} casts`}`,
  ].filter((line) => line !== false);
}

function missing(left: number, choice: Pick<Axes, "x">): string {
  if (left <= 0) return "";
  const what = choice.x === "latency" ? "no latency or error yet" : "no error yet";
  return `${left === 1 ? "One plan has" : `${count(left)} plans have`} ${what}, and ${left === 1 ? "is" : "are"} in the list only.`;
}

/** Returns what the signs on the chart mean. */
function legend(front: boolean, tried: boolean): HTMLElement | null {
  const signs: [string, string][] = [
    ...(front
      ? ([
          ["measured", "best, run"],
          ["predicted", "best, predicted"],
        ] as [string, string][])
      : []),
    ...(tried
      ? ([
          ["tried", "tried"],
          ["current", "current"],
        ] as [string, string][])
      : []),
  ];
  if (!front) return null; // of one kind of point the list beneath says enough
  return h(
    "div",
    { class: "pe-i-signs" },
    ...signs.map(([name, words]) =>
      h("span", {}, h("i", { class: `pe-i-sign pe-i-sign-${name}`, "aria-hidden": "true" }), words),
    ),
  );
}

function sources(search: SearchState): HTMLElement {
  const predicted = search.points.some((point) => point.error === null) ? "≈ predicted, not run" : "";
  return sourcesOf([predicted, search.error_provenance, search.latency_provenance]);
}

function sourcesOf(provenances: string[]): HTMLElement {
  const different = [...new Set(provenances.filter(Boolean))];
  return h("p", { class: "pe-i-provenance" }, different.map(visible).join("; "));
}

function empty(store: Store): HTMLElement {
  return h(
    "p",
    { class: "pe-i-empty" },
    store.state.run.state === "running" ? "The first plan is being measured." : "No plan has been measured yet.",
  );
}
