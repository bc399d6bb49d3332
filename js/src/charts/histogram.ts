/** Values of a layer on a log2 axis, over the bands in which the format overflows, is normal, subnormal, flushes. */

import { formatColour } from "../colours";
import { plotlyText } from "../inspector/names";
import { count, plural, powerOfTwo } from "../inspector/numbers";
import type { LayerValues } from "../protocol";
import type { Theme } from "../theme";
import type { Spec } from "./chart";
import { axis, baseLayout, FONT_SIZE, planColour } from "./layout";

const FLOOR = 0.6; // a bar of one value is seen on a log axis that begins below one
const WIDE_FORMAT = 64; // octaves: a format with more of them (bf16) is not shown whole
const APART = 2.5; // octaves between the values and the bars of zeros and of what is not finite
const MARGIN = 2; // octaves on each side
const CHARACTER_PX = 6.2; // mean width at the size of the labels
const LOST = "#cc79a7"; // Okabe and Ito's reddish purple: what the format loses at its lower end
const BAND_OPACITY = { flushed: 0.22, subnormal: 0.12, normal: 0.07, overflow: 0.18 };

export interface HistogramData {
  histogram: LayerValues["histogram"];
  bands: LayerValues["bands"];
  format: string;
}

interface Bar {
  x: number;
  label: string;
  exact: number;
  plan: number | null;
}

/** Returns the bars beside the axis: zeros on the left, what is not finite on the right; absent where there is none. */
function extraBars(h: LayerValues["histogram"], left: number, right: number): Bar[] {
  const bars = [
    { x: left - APART, label: "zero", exact: h.exact_zeros, plan: h.plan_zeros },
    { x: right + APART, label: "inf, NaN", exact: h.exact_nonfinite, plan: h.plan_nonfinite },
  ];
  return bars.filter((bar) => bar.exact > 0 || (bar.plan ?? 0) > 0);
}

/** Returns the ends of the log2 axis: the values, and the whole format unless it is too wide to be read. */
export function axisRange({ histogram, bands }: HistogramData): [number, number] {
  const low = Math.log2(bands.subnormal);
  const high = Math.log2(bands.overflow);
  const first = histogram.first;
  const last = first + histogram.exact.length;
  const empty = histogram.exact.length === 0;
  if (high - low > WIDE_FORMAT && !empty) return [first - MARGIN, last + MARGIN];
  return [Math.min(low, empty ? low : first) - MARGIN, Math.max(high, empty ? high : last) + MARGIN];
}

/** Returns the figure; the fp32 values are filled bars, those under the plan a stepped line over them. */
export function histogramSpec(data: HistogramData, colours: Theme, width: number): Spec {
  const { histogram: h, format } = data;
  const [left, right] = axisRange(data);
  const bars = extraBars(h, left, right);
  const from = left - (bars.some((bar) => bar.x < left) ? APART + 1 : 0);
  const to = right + (bars.some((bar) => bar.x > right) ? APART + 1 : 0);
  const all = [...h.exact, ...(h.plan ?? []), ...bars.flatMap((bar) => [bar.exact, bar.plan ?? 0])];
  const top = Math.max(1, ...all);
  const centres = h.exact.map((_, bin) => h.first + bin + 0.5);
  const hover = (range: string, exact: number, plan: number | null | undefined): string =>
    plotlyText(
      `${range}: ${plural(exact, "value")} in fp32${plan === null || plan === undefined ? "" : `, ${count(plan)} under the plan`}`,
    );
  const range = (bin: number): string => `${powerOfTwo(h.first + bin)} ≤ |x| < ${powerOfTwo(h.first + bin + 1)}`;
  const exact = {
    type: "bar",
    x: [...centres, ...bars.map((bar) => bar.x)],
    y: [...h.exact, ...bars.map((bar) => bar.exact)],
    width: [...centres.map(() => 0.92), ...bars.map(() => 1.4)],
    marker: { color: formatColour("fp32", colours.dark), opacity: 0.45, line: { width: 0 } },
    hoverinfo: "text",
    hovertext: [
      ...h.exact.map((value, bin) => hover(range(bin), value, h.plan?.[bin])),
      ...bars.map((bar) => hover(bar.label, bar.exact, bar.plan)),
    ],
    name: "fp32",
  };
  const spec: Spec = { data: [exact], layout: baseLayout(colours) };
  if (h.plan) spec.data.push(...planTraces(h.plan, h.first, bars, format, colours));
  Object.assign(spec.layout, {
    bargap: 0,
    barmode: "overlay",
    margin: { l: 40, r: 8, t: 20, b: 38 },
    xaxis: {
      ...axis(colours, "|value|"),
      ...ticks(left, right, bars, width),
      showgrid: false,
      range: [from, to],
      fixedrange: true,
    },
    yaxis: {
      ...axis(colours, "values"),
      type: "log",
      dtick: 1,
      tickformat: "~s",
      range: [Math.log10(FLOOR), Math.log10(top * 1.7)],
      fixedrange: true,
    },
    ...bandShapes(data, colours, left, right, from, to, width),
  });
  return spec;
}

/** Returns the outline of the values under the plan, and marks on the bars beside the axis. */
function planTraces(plan: number[], first: number, bars: Bar[], name: string, colours: Theme): object[] {
  const line = { color: planColour(name, colours), width: 1.8, shape: "hv" };
  const steps = [0, ...plan, 0];
  const x = steps.map((_, index) => first - 1 + index);
  const outline = {
    type: "scatter",
    mode: "lines",
    x: [...x, first + plan.length + 1],
    y: [...steps, 0].map((y) => Math.max(y, FLOOR / 10)),
    line,
    hoverinfo: "skip",
    name,
  };
  const apart = bars.filter((bar) => (bar.plan ?? 0) > 0);
  const caps = {
    type: "scatter",
    mode: "lines",
    x: apart.flatMap((bar) => [bar.x - 0.7, bar.x - 0.7, bar.x + 0.7, bar.x + 0.7, null]),
    y: apart.flatMap((bar) => [FLOOR / 10, bar.plan, bar.plan, FLOOR / 10, null]),
    line: { color: planColour(name, colours), width: 1.8 },
    hoverinfo: "skip",
    name,
  };
  return apart.length > 0 ? [outline, caps] : [outline];
}

function ticks(left: number, right: number, bars: Bar[], width: number): { tickvals: number[]; ticktext: string[] } {
  const fit = Math.max(3, (width - 48) / 44);
  const step = [2, 4, 8, 16, 32, 64].find((candidate) => (right - left) / candidate <= fit) ?? 64;
  const powers = [];
  for (let power = Math.ceil(left / step) * step; power <= right; power += step) powers.push(power);
  return {
    tickvals: [...powers, ...bars.map((bar) => bar.x)],
    ticktext: [...powers.map(powerOfTwo), ...bars.map((bar) => (bar.label === "zero" ? "0" : "∞"))],
  };
}

/** Returns the shaded bands, each with its name above where it is wide enough to hold it. */
function bandShapes(
  { bands }: HistogramData,
  colours: Theme,
  left: number,
  right: number,
  from: number,
  to: number,
  width: number,
): { shapes: object[]; annotations: object[] } {
  const [flushed, subnormal, overflow] = [bands.subnormal, bands.normal, bands.overflow].map(Math.log2) as [
    number,
    number,
    number,
  ];
  const list = [
    { name: "flushed", short: "→ 0", x0: from, x1: flushed, colour: LOST, opacity: BAND_OPACITY.flushed },
    {
      name: "subnormal",
      short: "sub.",
      x0: flushed,
      x1: subnormal,
      colour: LOST,
      opacity: BAND_OPACITY.subnormal,
    },
    {
      name: "normal",
      short: "normal",
      x0: subnormal,
      x1: overflow,
      colour: colours.good,
      opacity: BAND_OPACITY.normal,
    },
    { name: "overflow", short: "over", x0: overflow, x1: to, colour: colours.stop, opacity: BAND_OPACITY.overflow },
  ];
  const clipped = list
    .map((band) => ({ ...band, x0: Math.max(band.x0, left, from), x1: Math.min(band.x1, right, to) }))
    .filter((band) => band.x1 > band.x0);
  const pixels = (width - 48) / (to - from);
  return {
    shapes: clipped.map((band) => ({
      type: "rect",
      layer: "below",
      xref: "x",
      yref: "paper",
      x0: band.x0,
      x1: band.x1,
      y0: 0,
      y1: 1,
      fillcolor: band.colour,
      opacity: band.opacity,
      line: { width: 0 },
    })),
    annotations: clipped.flatMap((band) => {
      const room = (band.x1 - band.x0) * pixels;
      const text = [band.name, band.short].find((words) => words.length * CHARACTER_PX <= room);
      if (!text) return [];
      return [
        {
          x: (band.x0 + band.x1) / 2,
          y: 1,
          yref: "paper",
          yanchor: "bottom",
          text,
          showarrow: false,
          font: { size: FONT_SIZE - 1, color: colours.muted },
        },
      ];
    }),
  };
}
