/** The plans of the chart as tables, for the keyboard and for screen readers: those of the front, and those tried. */
import { h } from "../dom";
import type { FrontPoint, Num, Tried } from "../protocol";
import type { Store } from "../store";
import { shorten, tip, visible } from "./names";
import { ABSENT, count, duration, errorFigure, float, share } from "./numbers";
import { button } from "./ui";

const NAME = 60; // characters of a plan's label

/** Returns the relative error that an SQNR in dB stands for; NaN where it is not known. */
export function errorOf(sqnr: Num): number {
  return 10 ** (-float(sqnr) / 20);
}

interface Row {
  label: string;
  current: boolean;
  act: HTMLElement | null;
  error: string;
  metric: number;
  latency: number;
  low_share: number;
  casts: number | null;
}

/** Returns the plans of the front, from the most exact to the fastest. */
export function frontTable(store: Store, points: FrontPoint[], take: (index: number) => void): HTMLElement {
  const able = !store.source.readOnly && store.state.search.stale === "";
  const rows = points.map((point): Row => {
    const label = visible(shorten(point.label, NAME));
    const measured = float(point.error);
    return {
      label: point.label,
      current: point.current,
      act: able
        ? button("Take", () => take(point.index), {
            class: "pe-i-quiet",
            label: `Take this plan: ${label}`,
            key: `point ${point.index}`,
            disabled: store.taking !== null,
          })
        : null,
      error: Number.isNaN(measured) ? `≈ ${errorFigure(float(point.predicted_error))}` : errorFigure(measured),
      metric: float(point.metric),
      latency: float(point.latency_us),
      low_share: point.low_share,
      casts: point.casts,
    };
  });
  return planTable("Plans of the front", rows);
}

/** Returns the plans that were tried, in the order in which they were. */
export function triedTable(store: Store, tried: Tried[], goto: (index: number) => void): HTMLElement {
  const rows = tried.map((plan): Row => {
    const label = visible(shorten(plan.label, NAME));
    return {
      label: plan.label,
      current: plan.current,
      act: store.source.readOnly
        ? null
        : button("Go back", () => goto(plan.index), {
            class: "pe-i-quiet",
            label: `Go back to this plan: ${label}`,
            key: `plan ${plan.index}`,
          }),
      error: plan.sqnr_db === null ? ABSENT : errorFigure(errorOf(plan.sqnr_db)),
      metric: float(plan.metric),
      latency: float(plan.latency_us),
      low_share: plan.low_share,
      casts: plan.casts,
    };
  });
  return planTable("Plans tried so far", rows);
}

function planTable(label: string, rows: Row[]): HTMLElement {
  const metric = rows.some((row) => !Number.isNaN(row.metric));
  const latency = rows.some((row) => !Number.isNaN(row.latency));
  const head = ["plan", "error", metric && "accuracy", latency && "latency", "low", "casts"];
  const lines = rows.map((row) => {
    const cells = [
      row.error,
      metric && share(row.metric),
      latency && duration(row.latency),
      share(row.low_share),
      row.casts === null ? ABSENT : count(row.casts),
    ];
    return h(
      "tr",
      { "aria-current": row.current ? "true" : null },
      h(
        "th",
        { scope: "row", title: tip(row.label) },
        h("div", { class: "pe-i-planname" }, shorten(row.label, NAME)),
        row.current ? h("span", { class: "pe-i-current" }, "current") : row.act,
      ),
      ...cells
        .filter((text) => text !== false)
        .map((text) => h("td", { class: text === "not finite" ? "pe-i-stop" : "" }, text)),
    );
  });
  return h(
    "div",
    { class: "pe-i-wide pe-i-planlist" },
    h(
      "table",
      { class: "pe-i-plans", "aria-label": label },
      h("thead", {}, h("tr", {}, ...head.filter((one) => one !== false).map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, ...lines),
    ),
  );
}
