/** Paints what is in sight. */
import { fade } from "../theme";
import { drawBoxes, drawFrames } from "./boxes";
import { inSight, type Rect } from "./camera";
import { drawKernelName, drawKernels } from "./kernels";
import type { Box } from "./layout";
import type { View } from "./view";
import { drawCasts, drawTrueEdges, drawWires, traceWire } from "./wires";

/** World units around the view that are drawn too: sheets, marks and rings stand out of their boxes. */
const OVERHANG = 24;

export function paint(view: View, edges: readonly number[][]): void {
  const { context, camera, theme, ratio } = view;
  if (!context) return;
  const scale = camera.scale * ratio;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = theme.paper;
  context.fillRect(0, 0, view.canvas.width, view.canvas.height);
  context.setTransform(scale, 0, 0, scale, -camera.x * scale, -camera.y * scale);
  const seen = inSight(camera, view.size);
  const found = view.rows.find({
    x: seen.x - OVERHANG,
    y: seen.y - OVERHANG,
    width: seen.width + 2 * OVERHANG,
    height: seen.height + 2 * OVERHANG,
  });
  drawFrames(context, view, found.frames);
  drawKernels(context, view, seen);
  drawWires(context, view, found.wires);
  drawHoveredWire(context, view);
  drawMatches(context, view, found.boxes);
  drawRings(context, view, seen); // below the boxes: marks on their corners stay whole
  drawBoxes(context, view, found.boxes);
  if (edges.length > 0) drawTrueEdges(context, view, edges);
  drawCasts(context, view, found.wires);
  drawKernelName(context, view);
  drawMarquee(context, view);
}

function drawHoveredWire(context: CanvasRenderingContext2D, view: View): void {
  const wire = view.scene.wires[view.hoveredWire];
  if (!wire) return;
  context.beginPath();
  traceWire(context, wire.points, true);
  context.lineWidth = Math.max(2.5, 2 / view.camera.scale);
  context.strokeStyle = view.theme.ink;
  context.stroke();
}

/** What the search has found glows. */
function drawMatches(context: CanvasRenderingContext2D, view: View, boxes: readonly number[]): void {
  if (view.matches.size === 0) return;
  const spread = Math.max(4, 3 / view.camera.scale);
  context.fillStyle = fade(view.theme.warn, 0.75);
  context.beginPath();
  for (const at of boxes) {
    const box = view.scene.boxes[at] as Box;
    if (box.kind !== "layer" || !view.matches.has(box.node)) continue;
    context.roundRect(box.x - spread, box.y - spread, box.width + 2 * spread, box.height + 2 * spread, 5 + spread);
  }
  context.fill();
}

function drawRings(context: CanvasRenderingContext2D, view: View, seen: Rect): void {
  const { theme, camera } = view;
  const pixel = 1 / camera.scale;
  const visible = (box: Box): boolean => box.y < seen.y + seen.height && box.y + box.height > seen.y;
  const around = (at: number, gap: number): void => {
    const box = view.scene.boxes[at];
    if (!box || !visible(box)) return;
    const extent = box.kind === "group" && !box.open ? 4 : 0; // the sheet below
    context.roundRect(box.x - gap, box.y - gap, box.width + 2 * gap, box.height + extent + 2 * gap, 6 + gap);
  };
  if (view.hovered >= 0) {
    context.beginPath();
    around(view.hovered, 1);
    context.lineWidth = Math.max(1.5, 1.5 * pixel);
    context.strokeStyle = fade(theme.ink, 0.7);
    context.stroke();
  }
  const [whole, part]: [number[], number[]] = [[], []];
  for (const [at, count] of view.selected()) {
    const box = view.scene.boxes[at];
    const all = box?.kind !== "group" || count === view.store.model.size[box.group];
    (all ? whole : part).push(at);
  }
  context.strokeStyle = theme.accent;
  context.lineWidth = Math.max(2.5, 2 * pixel);
  context.beginPath();
  for (const at of whole) around(at, 2.5);
  context.stroke();
  // Only a part of what a folded group holds is selected.
  context.setLineDash([7, 4]);
  context.beginPath();
  for (const at of part) around(at, 2.5);
  context.stroke();
  context.setLineDash([]);
  const focus = view.boxOfKey(view.cursor);
  if (focus < 0 || !view.host.contains(document.activeElement)) return;
  context.beginPath();
  around(focus, 6);
  context.setLineDash([2, 3]);
  context.lineWidth = Math.max(1.5, 1.5 * pixel);
  context.strokeStyle = theme.ink;
  context.stroke();
  context.setLineDash([]);
}

function drawMarquee(context: CanvasRenderingContext2D, view: View): void {
  if (!view.marquee) return;
  const { x, y, width, height } = view.marquee;
  context.fillStyle = fade(view.theme.accent, 0.12);
  context.fillRect(x, y, width, height);
  context.lineWidth = 1.2 / view.camera.scale;
  context.strokeStyle = view.theme.accent;
  context.strokeRect(x, y, width, height);
}
