/** The tab Trade-off: every plan that was tried, as a point and in a list; each can be gone back to. */
import { type Chart, createChart } from "../charts/chart";
import { type Axes, type Point, tradeoffSpec } from "../charts/tradeoff";
import { h } from "../dom";
import type { Tried } from "../protocol";
import type { Store } from "../store";
import { shorten, tip, visible } from "./names";
import { count, duration, float, share, sqnr } from "./numbers";
import type { Part } from "./part";
import { button, refill } from "./ui";

const HEIGHT_PX = 280;

export function createTradeoffTab(store: Store): Part {
  const choice: Pick<Axes, "x" | "y"> = { x: "latency", y: "sqnr" };
  const controls = h("div", { class: "pe-i-row pe-i-axes" });
  const place = h("div");
  const note = h("p", { class: "pe-i-small" });
  const list = h("div");
  const element = h("div", { class: "pe-i-scroll" }, controls, place, note, list);
  let chart: Chart | null = null;

  /** Draws the plans that have both figures; returns what is to be said of the others. */
  const draw = (tried: Tried[]): string => {
    const axes = axesOf(tried, choice);
    const points = tried
      .map((plan) => pointOf(plan, axes))
      .filter((point) => !Number.isNaN(point.x) && !Number.isNaN(point.y));
    if (points.length === 0) {
      chart?.dispose();
      chart = null;
      return "";
    }
    if (!chart) {
      chart = createChart(
        store.source,
        "Plans tried so far: cost against quality; the list beneath has the same figures",
        HEIGHT_PX,
        (index) => goto(store, Number(index)),
      );
      place.replaceChildren(chart.element);
    }
    chart.draw((theme) => tradeoffSpec(points, axes, theme));
    return missing(tried.length - points.length, axes);
  };
  const part: Part = {
    element,
    update() {
      const { tried, revision } = store.state;
      refill(controls, [tried.map((plan) => [plan.latency_us, plan.metric]), choice], () => [
        axisSelect("across", choices(tried).x, choice, "x"),
        axisSelect("up", choices(tried).y, choice, "y"),
      ]);
      refill(list, [tried, revision, store.source.readOnly], () => [
        tried.length > 0 ? planList(store, tried) : empty(store),
      ]);
      refill(note, [tried, choice], () => [draw(tried)]);
    },
    dispose() {
      chart?.dispose();
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

function goto(store: Store, index: number): void {
  if (!store.state.tried.some((plan) => plan.index === index && plan.current))
    void store.edit({ op: "goto", tried: index });
}

/** Returns what can be drawn along each axis: latency and accuracy only where some plan has them. */
function choices(tried: Tried[]): { x: [Axes["x"], string][]; y: [Axes["y"], string][] } {
  const latency = tried.some((plan) => !Number.isNaN(float(plan.latency_us)));
  const metric = tried.some((plan) => !Number.isNaN(float(plan.metric)));
  return {
    x: [...(latency ? ([["latency", "latency"]] as [Axes["x"], string][]) : []), ["share", "share run low"]],
    y: [["sqnr", "output SQNR"], ...(metric ? ([["metric", "accuracy"]] as [Axes["y"], string][]) : [])],
  };
}

/** Returns the axes to draw: what was chosen, or what there is. */
export function axesOf(tried: Tried[], choice: Pick<Axes, "x" | "y">): Axes {
  const can = choices(tried);
  const x = can.x.some(([value]) => value === choice.x) ? choice.x : "share";
  const y = can.y.some(([value]) => value === choice.y) ? choice.y : "sqnr";
  const sources = [...new Set(tried.map((plan) => plan.latency_provenance).filter(Boolean))];
  const short = sources.length === 1 ? (sources[0] as string) : sources.length > 1 ? "of several origins" : "";
  return {
    x,
    y,
    xTitle:
      x === "share" ? "share of layers in the low format" : `latency${short ? `, ${shorten(visible(short), 44)}` : ""}`,
    yTitle: y === "metric" ? "accuracy" : "output SQNR, dB",
  };
}

export function pointOf(plan: Tried, axes: Axes): Point {
  const hover = [
    visible(shorten(plan.label, 60)),
    `output SQNR ${sqnr(float(plan.sqnr_db))} (${plan.error_provenance})`,
  ];
  const metric = float(plan.metric);
  const us = float(plan.latency_us);
  if (!Number.isNaN(metric)) hover.push(`accuracy ${share(metric)}`);
  if (!Number.isNaN(us)) hover.push(`latency ${duration(us)} (${plan.latency_provenance})`);
  hover.push(`${share(plan.low_share)} in the low format${plan.casts === null ? "" : `, ${count(plan.casts)} casts`}`);
  return {
    index: plan.index,
    x: axes.x === "share" ? plan.low_share : us,
    y: axes.y === "metric" ? metric : float(plan.sqnr_db),
    current: plan.current,
    hover,
  };
}

function missing(left: number, axes: Axes): string {
  if (left <= 0) return "";
  const what = axes.x === "latency" ? "no latency or error yet" : "no error yet";
  return `${left === 1 ? "One plan has" : `${count(left)} plans have`} ${what}, and ${left === 1 ? "is" : "are"} in the list only.`;
}

function empty(store: Store): HTMLElement {
  return h(
    "p",
    { class: "pe-i-empty" },
    store.state.run.state === "running" ? "The first plan is being measured." : "No plan has been measured yet.",
  );
}

/** Returns the plans as a table: what the chart shows, for the keyboard and for screen readers. */
function planList(store: Store, tried: Tried[]): HTMLElement {
  const metric = tried.some((plan) => !Number.isNaN(float(plan.metric)));
  const latency = tried.some((plan) => !Number.isNaN(float(plan.latency_us)));
  const head = ["plan", "SQNR", metric && "accuracy", latency && "latency", "low", "casts"].filter(
    (label) => label !== false,
  );
  const sources = [
    ...new Set(tried.flatMap((plan) => [plan.error_provenance, plan.latency_provenance]).filter(Boolean)),
  ];
  const rows = tried.map((plan) => {
    const db = sqnr(float(plan.sqnr_db));
    const name = shorten(plan.label, 60);
    const go = plan.current
      ? h("span", { class: "pe-i-current" }, "current")
      : store.source.readOnly
        ? null
        : button("Go back", () => goto(store, plan.index), {
            class: "pe-i-quiet",
            label: `Go back to this plan: ${name}`,
            key: `plan ${plan.index}`,
          });
    const cells = [
      db,
      metric && share(float(plan.metric)),
      latency && duration(float(plan.latency_us)),
      share(plan.low_share),
      plan.casts === null ? "–" : count(plan.casts),
    ];
    return h(
      "tr",
      { "aria-current": plan.current ? "true" : null },
      h("th", { scope: "row", title: tip(plan.label) }, h("div", { class: "pe-i-planname" }, name), go),
      ...cells
        .filter((text) => text !== false)
        .map((text) => h("td", { class: text === "not finite" ? "pe-i-stop" : "" }, text)),
    );
  });
  return h(
    "div",
    {},
    h(
      "div",
      { class: "pe-i-wide" },
      h(
        "table",
        { class: "pe-i-plans" },
        h("thead", {}, h("tr", {}, ...head.map((label) => h("th", { scope: "col" }, label)))),
        h("tbody", {}, ...rows),
      ),
    ),
    sources.length > 0 ? h("p", { class: "pe-i-provenance" }, sources.map(visible).join("; ")) : null,
  );
}
