/** Draws wires, their arrow heads, and the casts on them. */
import { formatColour } from "../colours";
import { mix } from "../theme";
import type { Wire } from "./layout";
import { drawCast } from "./marks";
import type { View } from "./view";

const ARROW = 7;
/** Scales from which on arrow heads and casts are drawn. */
const ARROWS = 0.3;
const CASTS = 0.25;
const CAST_RADIUS = 10;
/** Wires to a stroke: one path of thousands of curves takes longer to fill in than many paths of some. */
const BATCH = 40;
/** Shorter on screen than this, a wire is not seen between its boxes. */
const SHORTEST_PX = 2;

/** Casts on a wire: tensors cast to the low format, to int8, and to fp32. */
export interface Casts {
  low: number;
  int8: number; // beside the plan's own low format
  high: number;
}

/** Returns the casts of a wire; edges of one tensor share one cast. */
export function castsOf(view: View, wire: Wire): Casts {
  const { cast } = view.store.figures;
  const { tensor } = view.store.model.structure.edges;
  const low = new Set<number>();
  const high = new Set<number>();
  const int8 = new Set<number>();
  for (const edge of wire.edges) {
    if (cast[edge] === 1) low.add(tensor[edge] ?? -1);
    else if (cast[edge] === 2) high.add(tensor[edge] ?? -1);
    else if (cast[edge] === 3) int8.add(tensor[edge] ?? -1);
  }
  return { low: low.size, int8: int8.size, high: high.size };
}

/** Returns what stands in a cast's diamond. */
export function bitsOf(format: string): string {
  return format === "bf16" ? "bf" : (/\d+/.exec(format)?.[0] ?? "?");
}

export function traceWire(context: CanvasRenderingContext2D, points: readonly number[], smooth: boolean): void {
  context.moveTo(points[0] as number, points[1] as number);
  for (let at = 2; at < points.length; at += 2) {
    const [x0, y0] = [points[at - 2] as number, points[at - 1] as number];
    const [x1, y1] = [points[at] as number, points[at + 1] as number];
    if (!smooth || x0 === x1 || y0 === y1) context.lineTo(x1, y1);
    else {
      // Upright at both ends: a wire leaves and enters boxes from above and below, and stays within its corridor.
      const middle = (y0 + y1) / 2;
      context.bezierCurveTo(x0, middle, x1, middle, x1, y1);
    }
  }
}

function traceArrow(context: CanvasRenderingContext2D, points: readonly number[], size: number): void {
  const [x, y] = [points[points.length - 2] as number, points[points.length - 1] as number];
  context.moveTo(x, y);
  context.lineTo(x - size * 0.5, y - size);
  context.lineTo(x + size * 0.5, y - size);
  context.closePath();
}

export function drawWires(context: CanvasRenderingContext2D, view: View, wires: readonly number[]): void {
  const { scale } = view.camera;
  const colour = mix(view.theme.paper, view.theme.ink, view.theme.dark ? 0.5 : 0.42);
  const drawn: Wire[] = [];
  context.lineWidth = Math.max(1.2, 0.5 / scale);
  context.strokeStyle = colour;
  context.beginPath();
  for (const at of wires) {
    const wire = view.scene.wires[at] as Wire;
    const { points } = wire;
    const height = Math.abs((points[points.length - 1] ?? 0) - (points[1] ?? 0));
    if (height * scale < SHORTEST_PX) continue;
    traceWire(context, points, scale >= ARROWS);
    if (drawn.push(wire) % BATCH === 0) {
      context.stroke();
      context.beginPath();
    }
  }
  context.stroke();
  if (scale < ARROWS) return;
  context.beginPath();
  for (const { points } of drawn) traceArrow(context, points, ARROW);
  context.fillStyle = colour;
  context.fill();
}

/** Returns the point in the middle of a wire's way. */
export function middleOf(points: readonly number[]): { x: number; y: number } {
  let length = 0;
  for (let at = 2; at < points.length; at += 2) length += step(points, at);
  let left = length / 2;
  for (let at = 2; at < points.length; at += 2) {
    const part = step(points, at);
    if (left <= part && part > 0) {
      const share = left / part;
      const [x, y] = [points[at - 2] as number, points[at - 1] as number];
      return { x: x + ((points[at] as number) - x) * share, y: y + ((points[at + 1] as number) - y) * share };
    }
    left -= part;
  }
  return { x: points[0] ?? 0, y: points[1] ?? 0 };
}

function step(points: readonly number[], at: number): number {
  return Math.hypot(
    (points[at] as number) - (points[at - 2] as number),
    (points[at + 1] as number) - (points[at - 1] as number),
  );
}

export function drawCasts(context: CanvasRenderingContext2D, view: View, wires: readonly number[]): void {
  const { theme, store } = view;
  if (view.camera.scale < CASTS || store.preview) return; // where a preview would cast is not known
  context.font = `600 9px ${theme.font}`;
  context.textBaseline = "middle";
  for (const at of wires) {
    const wire = view.scene.wires[at] as Wire;
    const { low, int8, high } = castsOf(view, wire);
    const all = [
      [store.state.format, low],
      ["int8", int8],
      ["fp32", high],
    ] as const;
    const some = all.filter(([, count]) => count > 0);
    if (some.length === 0) continue;
    const { x, y } = middleOf(wire.points);
    some.forEach(([format, count], place) => {
      const aside = (2 * place - (some.length - 1)) * (CAST_RADIUS + 1);
      drawOne(context, view, format, count, x + aside, y, place === 0 && some.length > 1);
    });
  }
}

function drawOne(
  context: CanvasRenderingContext2D,
  view: View,
  format: string,
  count: number,
  x: number,
  y: number,
  left: boolean,
): void {
  const { theme } = view;
  context.textAlign = "center";
  drawCast(context, theme, bitsOf(format), formatColour(format, theme.dark), x, y, CAST_RADIUS);
  if (count < 2) return;
  context.textAlign = left ? "right" : "left";
  const text = `×${count}`;
  context.lineWidth = 3;
  context.strokeStyle = theme.paper;
  context.strokeText(text, x + (left ? -1 : 1) * (CAST_RADIUS + 2), y);
  context.fillStyle = theme.ink;
  context.fillText(text, x + (left ? -1 : 1) * (CAST_RADIUS + 2), y);
}

/** Draws the true edges of the selected layers over all others. */
export function drawTrueEdges(context: CanvasRenderingContext2D, view: View, ways: readonly number[][]): void {
  const { scale } = view.camera;
  context.beginPath();
  for (const points of ways) traceWire(context, points, true);
  context.lineWidth = Math.max(2.2, 1.6 / scale);
  context.strokeStyle = view.theme.accent;
  context.stroke();
  context.beginPath();
  for (const points of ways) traceArrow(context, points, Math.max(ARROW + 1, 6 / scale));
  context.fillStyle = view.theme.accent;
  context.fill();
}
