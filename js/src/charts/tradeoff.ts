/** The front of the search and every plan that was tried, as points: cost to the right, error (or accuracy) upwards. */

import { plotlyText } from "../inspector/names";
import { duration, errorFigure, share } from "../inspector/numbers";
import { fade, type Theme } from "../theme";
import type { Spec } from "./chart";
import { axis, baseLayout, niceTicks } from "./layout";

/** A plan that was tried. */
export interface Point {
  index: number; // of the plan among those tried
  x: number;
  y: number; // relative L2 error, or accuracy 0..1; an error of 0 or infinity stands on a shelf
  current: boolean;
  hover: string[]; // lines
}
/** A plan of the front: what the model of noise predicts of it, and what its run gave. */
export interface FrontMark {
  index: number; // of the point on the front
  x: number;
  predicted: number; // as y of a point; NaN where it is not known
  measured: number;
  hover: string[];
}
export interface Axes {
  x: "latency" | "share";
  y: "error" | "metric";
  xTitle: string;
  yTitle: string;
}
/** What stands on the chart besides the plans tried. */
export interface Front {
  marks: FrontMark[];
  stale: boolean; // it does not fit what is set now
  preview: { x: number; y: number; budget: number } | null;
}
export const NO_FRONT: Front = { marks: [], stale: false, preview: null };

const PAD = 0.1; // of the span
const SHELF = 0.2; // of the span, from the points to the shelf
const OLD = 0.35; // opacity of a front that is stale
const FEW_DECADES = 2; // on an axis this short 2 and 5 are marked too

/** What a click on a point says: of which kind it is, and its index. */
export type Clicked = `tried ${number}` | `front ${number}`;

export function tradeoffSpec(points: Point[], front: Front, axes: Axes, colours: Theme): Spec {
  const scale = axes.y === "error" ? Math.log10 : (y: number): number => y;
  const heights = [
    ...points.map(({ y }) => scale(y)),
    ...front.marks.flatMap(({ predicted, measured }) => [scale(predicted), scale(measured)]),
    ...(front.preview ? [scale(front.preview.budget)] : []),
  ].filter((y) => !Number.isNaN(y));
  const vertical = verticalOf(heights, axes, colours);
  const place = (y: number): number => vertical.place(scale(y));
  const xs = [...points, ...front.marks].map(({ x }) => x);
  return {
    data: [
      ...frontTraces(front, place, colours),
      ...triedTraces(points, place, colours),
      ...previewTraces(front, place, colours),
    ],
    layout: {
      ...baseLayout(colours),
      margin: { l: 66, r: 14, t: 10, b: 40 },
      xaxis: { ...axis(colours, axes.xTitle), ...horizontalOf(xs, axes) },
      yaxis: { ...axis(colours, axes.yTitle), ...vertical.axis },
      shapes: [...vertical.shapes, ...budgetLine(front, place, colours)],
    },
  };
}

interface Vertical {
  place(y: number): number;
  axis: object;
  shapes: object[];
}

/** Returns the upright axis: ticks, range, and shelves for plans that are exact or not finite. */
function verticalOf(heights: number[], axes: Axes, colours: Theme): Vertical {
  const finite = heights.filter(Number.isFinite);
  let [low, high] = finite.length > 0 ? [Math.min(...finite), Math.max(...finite)] : [-4, -3];
  if (axes.y === "error" && high - low < 1) [low, high] = [low - 0.5, high + 0.5]; // a decade, so that there are ticks
  const span = high - low || Math.abs(high) || 1;
  const shelves = [
    { of: Number.NEGATIVE_INFINITY, at: low - SHELF * span, text: "exact", colour: colours.good },
    { of: Number.POSITIVE_INFINITY, at: high + SHELF * span, text: "not finite", colour: colours.stop },
  ].filter(({ of }) => heights.includes(of));
  const [from, to] = [low - PAD * span, high + PAD * span];
  const ticks = axes.y === "error" ? decades(from, to) : niceTicks(from, to, 4);
  const label = (tick: number): string => (axes.y === "error" ? errorTick(tick) : share(tick));
  const ends = [low, high, ...shelves.map(({ at }) => at)];
  return {
    place: (y) => shelves.find(({ of }) => of === y)?.at ?? y,
    axis: {
      tickvals: [...ticks, ...shelves.map(({ at }) => at)],
      ticktext: [...ticks.map(label), ...shelves.map(({ text }) => text)],
      range: [Math.min(...ends) - PAD * span, Math.max(...ends) + PAD * span],
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
  };
}

/** Returns ticks between two powers of ten, as exponents: whole ones, and on a short axis those of 2 and 5 too. */
export function decades(from: number, to: number): number[] {
  const short = to - from <= FEW_DECADES;
  const every = Math.max(1, Math.ceil((to - from) / 6));
  const ticks = [];
  for (let power = Math.floor(from); power <= to; power += every) {
    for (const digit of short ? [1, 2, 5] : [1]) {
      const tick = power + Math.log10(digit);
      if (tick >= from && tick <= to) ticks.push(tick);
    }
  }
  return ticks;
}

function errorTick(tick: number): string {
  return errorFigure(10 ** tick).replace(".0", "");
}

function frontTraces(front: Front, place: (y: number) => number, colours: Theme): object[] {
  const { marks } = front;
  if (marks.length === 0) return [];
  const opacity = front.stale ? OLD : 1;
  const best = (mark: FrontMark): number => (Number.isNaN(mark.measured) ? mark.predicted : mark.measured);
  const line = marks.filter((mark) => Number.isFinite(place(best(mark)))).sort((a, b) => a.x - b.x);
  const dots = (name: string, chosen: FrontMark[], y: (mark: FrontMark) => number, marker: object): object => ({
    type: "scatter",
    mode: "markers",
    name,
    opacity,
    x: chosen.map(({ x }) => x),
    y: chosen.map((mark) => place(y(mark))),
    customdata: chosen.map(({ index }): Clicked => `front ${index}`),
    hoverinfo: "text",
    hovertext: chosen.map(({ hover }) => hover.map(plotlyText).join("<br>")),
    cliponaxis: false,
    marker,
  });
  return [
    {
      type: "scatter",
      mode: "lines",
      name: "front",
      opacity,
      x: line.map(({ x }) => x),
      y: line.map((mark) => place(best(mark))),
      line: { color: fade(colours.accent, 0.6), width: 1.6 },
      hoverinfo: "skip",
    },
    dots(
      "predicted",
      marks.filter(({ predicted }) => !Number.isNaN(predicted)),
      ({ predicted }) => predicted,
      { color: colours.paper, size: 7, symbol: "circle", line: { width: 1.5, color: colours.accent } },
    ),
    dots(
      "measured",
      marks.filter(({ measured }) => !Number.isNaN(measured)),
      ({ measured }) => measured,
      { color: colours.accent, size: 8, symbol: "circle", line: { width: 1, color: colours.paper } },
    ),
  ];
}

function triedTraces(points: Point[], place: (y: number) => number, colours: Theme): object[] {
  const trace = (chosen: Point[], marker: object, name: string): object => ({
    type: "scatter",
    mode: "markers",
    name,
    x: chosen.map((point) => point.x),
    y: chosen.map((point) => place(point.y)),
    customdata: chosen.map(({ index }): Clicked => `tried ${index}`),
    hoverinfo: "text",
    hovertext: chosen.map((point) => point.hover.map(plotlyText).join("<br>")),
    cliponaxis: false,
    marker,
  });
  const symbols = (chosen: Point[]): string[] =>
    chosen.map(({ y }) => (y === Number.POSITIVE_INFINITY ? "x" : "diamond"));
  const others = points.filter((point) => !point.current);
  const current = points.filter((point) => point.current);
  return [
    trace(
      others,
      { color: colours.muted, size: 9, symbol: symbols(others), line: { width: 1, color: colours.paper } },
      "tried",
    ),
    trace(
      current,
      { color: colours.warn, size: 13, symbol: symbols(current), line: { width: 2, color: colours.ink } },
      "current",
    ),
  ];
}

/** Returns where the plan stands that is looked at and not set. */
function previewTraces({ preview }: Front, place: (y: number) => number, colours: Theme): object[] {
  if (!preview || Number.isNaN(preview.x) || Number.isNaN(preview.y)) return [];
  return [
    {
      type: "scatter",
      mode: "markers",
      name: "preview",
      x: [preview.x],
      y: [place(preview.y)],
      hoverinfo: "skip",
      cliponaxis: false,
      marker: { size: 17, symbol: "circle-open", color: colours.ink, line: { width: 2, color: colours.ink } },
    },
  ];
}

function budgetLine({ preview }: Front, place: (y: number) => number, colours: Theme): object[] {
  if (!preview || Number.isNaN(preview.budget)) return [];
  const at = place(preview.budget);
  const line = { color: colours.ink, width: 1, dash: "dash" };
  return [{ type: "line", layer: "below", xref: "paper", x0: 0, x1: 1, y0: at, y1: at, line }];
}

function horizontalOf(xs: number[], axes: Axes): object {
  if (axes.x === "share") {
    const tickvals = [0, 0.25, 0.5, 0.75, 1];
    return { range: [-0.06, 1.06], tickvals, ticktext: tickvals.map(share) };
  }
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const pad = PAD * (right - left || Math.abs(right) || 1);
  const range = [left - pad, right + pad] as const;
  const tickvals = niceTicks(...range, 4);
  return { range, tickvals, ticktext: tickvals.map(duration) };
}
