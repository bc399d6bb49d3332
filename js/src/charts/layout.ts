/** What all figures share: quiet axes, no title, the theme's font. */
import { formatColour } from "../colours";
import { mix, type Theme } from "../theme";

const DARKER = 0.25; // share of ink in a format's colour, so that a thin line is seen on paper
export const FONT_SIZE = 11; // CSS pixels

export function baseLayout(colours: Theme): Record<string, unknown> {
  return {
    margin: { l: 46, r: 10, t: 8, b: 38 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colours.font, size: FONT_SIZE, color: colours.muted },
    hoverlabel: {
      bgcolor: colours.paper,
      bordercolor: colours.line,
      font: { family: colours.font, size: 12, color: colours.ink },
      align: "left",
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.ink },
    showlegend: false,
    hovermode: "closest",
    dragmode: "zoom",
  };
}

export function axis(colours: Theme, title: string): Record<string, unknown> {
  return {
    title: { text: title, standoff: 6, font: { size: FONT_SIZE } },
    gridcolor: colours.line,
    griddash: "dot",
    linecolor: colours.line,
    tickcolor: colours.line,
    ticks: "outside",
    ticklen: 3,
    zeroline: false,
  };
}

/** Returns round ticks between two values, about `wanted` of them. */
export function niceTicks(from: number, to: number, wanted: number): number[] {
  const span = to - from;
  if (!(span > 0)) return [from];
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw * (1 - 1e-9)) ?? raw;
  const ticks = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to + step * 1e-9; tick += step) {
    ticks.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  }
  return ticks;
}

/** Returns the colour of values in a format; of the plan where a layer stays in fp32 but its inputs do not. */
export function planColour(format: string, theme: Theme): string {
  return mix(formatColour(format, theme.dark), theme.ink, DARKER);
}
