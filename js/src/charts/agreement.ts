/** Values under the plan against the exact ones; on the line they agree, what is not finite stands at the edge. */

import { plotlyText } from "../inspector/names";
import { quantity } from "../inspector/numbers";
import type { LayerValues } from "../protocol";
import type { Theme } from "../theme";
import type { Spec } from "./chart";
import { axis, baseLayout, niceTicks, planColour } from "./layout";

type Scatter = NonNullable<LayerValues["scatter"]>;
const WIDE = 20; // largest over typical |value| from which on a linear axis would crowd them all at zero
const PAD = 0.06; // of the span, around the points
const EDGE = 0.14; // of the span, from the points to the shelf of what is not finite

/** Maps values to the axis: linear, or symmetric and logarithmic for large ones. */
export interface Scale {
  to(value: number): number;
  ticks: { at: number; text: string }[];
}

/** Returns the scale that suits the values. */
export function scaleOf(values: Float32Array): Scale {
  const sizes = Array.from(values, Math.abs)
    .filter((value) => Number.isFinite(value) && value > 0)
    .sort((a, b) => a - b);
  const largest = sizes.at(-1) ?? 1;
  const typical = sizes[Math.floor(sizes.length / 2)] ?? 1;
  const negative = values.some((value) => value < 0);
  const positive = values.some((value) => value > 0) || !negative;
  if (largest / typical < WIDE) {
    const finite = [...values].filter(Number.isFinite);
    const ticks = niceTicks(Math.min(0, ...finite), Math.max(0, ...finite), 4);
    return { to: (value) => value, ticks: ticks.map((value) => ({ at: value, text: quantity(value) })) };
  }
  // asinh is linear below `knee` and a logarithm above it, on both sides of zero.
  const knee = typical / 4;
  const to = (value: number): number => Math.asinh(value / knee);
  const top = Math.floor(Math.log10(largest));
  const bottom = Math.ceil(Math.log10(knee));
  const every = Math.max(1, Math.ceil((top - bottom + 1) / 4));
  const powers = [0];
  for (let power = top; power >= bottom; power -= every) powers.push(10 ** power);
  return { to, ticks: signed(powers, negative, positive).map((value) => ({ at: to(value), text: quantity(value) })) };
}

function signed(sizes: number[], negative: boolean, positive: boolean): number[] {
  const both = sizes.flatMap((value) => [...(positive ? [value] : []), ...(negative ? [-value] : [])]);
  return [...new Set(both.map((value) => value + 0))].sort((a, b) => a - b);
}

/** Returns the figure. */
export function agreementSpec(points: Scatter, format: string, colours: Theme): Spec {
  const scale = scaleOf(points.exact);
  const mapped = Array.from(points.exact, scale.to);
  const planned = Array.from(points.plan, scale.to);
  const shown = [...mapped, ...planned].filter(Number.isFinite);
  const low = Math.min(0, ...shown);
  const high = Math.max(0, ...shown);
  const span = high - low || 1;
  const [from, to] = [low - PAD * span, high + PAD * span];
  const good: number[] = [];
  const bad: number[] = [];
  points.plan.forEach((value, index) => {
    if (Number.isFinite(mapped[index])) (Number.isFinite(value) ? good : bad).push(index);
  });
  const text = (index: number): string =>
    plotlyText(
      `fp32 ${quantity(points.exact[index] ?? Number.NaN, 5)} → ${format} ${word(points.plan[index] ?? Number.NaN)}`,
    );
  // NaN has no side of its own: it stands on the upper shelf, told apart by its mark.
  const shelf = (index: number): number =>
    points.plan[index] === Number.NEGATIVE_INFINITY ? low - EDGE * span : high + EDGE * span;
  const edges = [...new Set(bad.map(shelf))];
  const ticktext = { tickvals: scale.ticks.map((tick) => tick.at), ticktext: scale.ticks.map((tick) => tick.text) };
  const words = edges.map((edge) => {
    const here = bad.filter((index) => shelf(index) === edge);
    const kinds = [
      here.some((index) => !Number.isNaN(points.plan[index])) && (edge > 0 ? "+∞" : "−∞"),
      here.some((index) => Number.isNaN(points.plan[index])) && "NaN",
    ];
    return kinds.filter(Boolean).join(" ");
  });
  const bottom = Math.min(from, ...edges.map((edge) => edge - PAD * span));
  const top = Math.max(to, ...edges.map((edge) => edge + PAD * span));
  return {
    data: [
      {
        type: "scatter",
        mode: "lines",
        x: [from, to],
        y: [from, to],
        line: { color: colours.muted, width: 1, dash: "dash" },
        hoverinfo: "skip",
      },
      {
        type: "scatter",
        mode: "markers",
        x: good.map((index) => mapped[index]),
        y: good.map((index) => planned[index]),
        hoverinfo: "text",
        hovertext: good.map(text),
        marker: { color: planColour(format, colours), size: 4, opacity: 0.55, line: { width: 0 } },
      },
      {
        type: "scatter",
        mode: "markers",
        x: bad.map((index) => mapped[index]),
        y: bad.map(shelf),
        hoverinfo: "text",
        hovertext: bad.map(text),
        cliponaxis: false,
        marker: {
          color: colours.stop,
          size: 6,
          symbol: bad.map((index) => (Number.isNaN(points.plan[index]) ? "x-thin-open" : "triangle-up-open")),
          line: { width: 1.4, color: colours.stop },
        },
      },
    ],
    layout: {
      ...baseLayout(colours),
      margin: { l: 70, r: 10, t: 6, b: 38 },
      xaxis: { ...axis(colours, "fp32"), ...ticktext, range: [from, to] },
      yaxis: {
        ...axis(colours, format),
        tickvals: [...ticktext.tickvals, ...edges],
        ticktext: [...ticktext.ticktext, ...words],
        range: [bottom, top],
      },
      shapes: edges.map((edge) => ({
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: edge,
        y1: edge,
        layer: "below",
        line: { color: colours.stop, width: 1, dash: "dot" },
      })),
    },
  };
}

function word(value: number): string {
  return Number.isNaN(value) ? "NaN" : quantity(value, 5);
}
