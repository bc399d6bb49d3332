/** Icons of the graph's tool bar: 16 by 16, strokes in the colour of the text. */

const PATHS = {
  search: "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9M10.5 10.5L14 14",
  minus: "M3 8h10",
  plus: "M3 8h10M8 3v10",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10M6 6h4v4H6z",
  home: "M3 2.5h10M8 13.5V5.5M4.5 9L8 5.5L11.5 9",
  fold: "M3 8h10M5.5 2.5L8 5L10.5 2.5M5.5 13.5L8 11L10.5 13.5",
  unfold: "M3 8h10M5.5 5L8 2.5L10.5 5M5.5 11L8 13.5L10.5 11",
  select: "M2.5 4.5v-2h2M7 2.5h2M11.5 2.5h2v2M13.5 7v2M13.5 11.5v2h-2M9 13.5H7M4.5 13.5h-2v-2M2.5 9V7",
  keys: "M1.5 4.5h13v8h-13zM4 7h.01M6.5 7h.01M9 7h.01M11.5 7h.01M4.5 10h7",
  down: "M4 6l4 4l4-4",
  close: "M4 4l8 8M12 4l-8 8",
} as const;

export type Icon = keyof typeof PATHS;

const SVG = "http://www.w3.org/2000/svg";

export function icon(name: Icon): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "pe-graph-icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
