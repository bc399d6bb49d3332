/** Every plan that was tried, as a point: cost to the right, quality upwards. */

import { plotlyText } from "../inspector/names";
import { duration, fixed, share } from "../inspector/numbers";
import type { Theme } from "../theme";
import type { Spec } from "./chart";
import { axis, baseLayout, niceTicks } from "./layout";

export interface Point {
  index: number; // of the plan among those tried
  x: number;
  y: number; // dB or 0..1; infinities stand on shelves
  current: boolean;
  hover: string[]; // lines
}
export interface Axes {
  x: "latency" | "share";
  y: "sqnr" | "metric";
  xTitle: string;
  yTitle: string;
}

const PAD = 0.1; // of the span
const SHELF = 0.2; // of the span, from the points to the shelf

export function tradeoffSpec(points: Point[], axes: Axes, colours: Theme): Spec {
  const finite = points.map((point) => point.y).filter(Number.isFinite);
  const [low, high] = finite.length > 0 ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  const span = high - low || Math.abs(high) || 1;
  const shelf = (y: number): number =>
    y === Number.POSITIVE_INFINITY ? high + SHELF * span : y === Number.NEGATIVE_INFINITY ? low - SHELF * span : y;
  const shelves = [
    points.some((point) => point.y === Number.POSITIVE_INFINITY) && {
      at: high + SHELF * span,
      text: "exact",
      colour: colours.good,
    },
    points.some((point) => point.y === Number.NEGATIVE_INFINITY) && {
      at: low - SHELF * span,
      text: "not finite",
      colour: colours.stop,
    },
  ].filter((found) => found !== false);
  const ticks = finite.length > 0 ? niceTicks(low - PAD * span, high + PAD * span, 4) : [];
  const tickvals = [...ticks, ...shelves.map(({ at }) => at)];
  const label = (y: number): string => (axes.y === "metric" ? share(y) : fixed(y, span < 4 ? 1 : 0));
  const trace = (chosen: Point[], marker: object, name: string): object => ({
    type: "scatter",
    mode: "markers",
    name,
    x: chosen.map((point) => point.x),
    y: chosen.map((point) => shelf(point.y)),
    customdata: chosen.map((point) => point.index),
    hoverinfo: "text",
    hovertext: chosen.map((point) => point.hover.map(plotlyText).join("<br>")),
    cliponaxis: false,
    marker,
  });
  const symbols = (chosen: Point[]): string[] =>
    chosen.map(({ y }) => (y === Number.NEGATIVE_INFINITY ? "x" : "circle"));
  const others = points.filter((point) => !point.current);
  const current = points.filter((point) => point.current);
  const xs = points.map((point) => point.x);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const width = right - left || Math.abs(right) || 1;
  const x =
    axes.x === "share"
      ? { range: [-0.06, 1.06], ...percents() }
      : { range: [left - PAD * width, right + PAD * width], ...times(left - PAD * width, right + PAD * width) };
  return {
    data: [
      trace(
        others,
        { color: colours.muted, size: 9, symbol: symbols(others), line: { width: 1, color: colours.paper } },
        "tried",
      ),
      trace(
        current,
        { color: colours.accent, size: 13, symbol: symbols(current), line: { width: 2, color: colours.ink } },
        "current",
      ),
    ],
    layout: {
      ...baseLayout(colours),
      margin: { l: 66, r: 14, t: 10, b: 40 },
      xaxis: { ...axis(colours, axes.xTitle), ...x },
      yaxis: {
        ...axis(colours, axes.yTitle),
        tickvals,
        ticktext: [
          ...tickvals.slice(0, tickvals.length - shelves.length).map(label),
          ...shelves.map(({ text }) => text),
        ],
        range: [
          Math.min(low, ...shelves.map(({ at }) => at)) - PAD * span,
          Math.max(high, ...shelves.map(({ at }) => at)) + PAD * span,
        ],
      },
      shapes: shelves.map(({ at, colour }) => ({
        type: "line",
        layer: "below",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: at,
        y1: at,
        line: { color: colour, width: 1, dash: "dot" },
      })),
    },
  };
}

function percents(): object {
  const tickvals = [0, 0.25, 0.5, 0.75, 1];
  return { tickvals, ticktext: tickvals.map(share) };
}

function times(left: number, right: number): object {
  const tickvals = niceTicks(left, right, 4);
  return { tickvals, ticktext: tickvals.map(duration) };
}
