/** What lies under a point of the canvas. */
import { badgeOf, chevronOf, hasDetail } from "./boxes";
import { overlaps, type Rect } from "./camera";
import { type Box, TITLE_HEIGHT } from "./layout";
import type { View } from "./view";

export interface Hit {
  box: number; // -1: none
  part: "body" | "badge" | "chevron" | "none";
  wire: number; // -1: none
}

/** Pixels around a wire that still count as on it. */
const NEAR_WIRE_PX = 5;

export function hitTest(view: View, x: number, y: number): Hit {
  const at = view.world(x, y);
  const near = NEAR_WIRE_PX / view.camera.scale;
  const around: Rect = { x: at.x - near, y: at.y - near, width: 2 * near, height: 2 * near };
  const found = view.rows.find(around);
  for (const box of found.boxes.reverse()) {
    if (contains(view.scene.boxes[box] as Box, at)) return { box, part: partOf(view, box, at), wire: -1 };
  }
  for (const box of found.frames.reverse()) {
    const frame = view.scene.boxes[box] as Box;
    if (!contains({ ...frame, height: TITLE_HEIGHT }, at)) continue;
    return { box, part: partOf(view, box, at), wire: -1 };
  }
  for (const wire of found.wires) {
    if (distance(view.scene.wires[wire]?.points ?? [], at) <= near) return { box: -1, part: "none", wire };
  }
  return { box: -1, part: "none", wire: -1 };
}

/** Returns the boxes that a rectangle of the world touches; frames only where it holds them whole is not asked for. */
export function boxesIn(view: View, rect: Rect): number[] {
  return view.rows.find(rect).boxes.filter((box) => overlaps(view.scene.boxes[box] as Box, rect));
}

function partOf(view: View, at: number, point: { x: number; y: number }): Hit["part"] {
  const box = view.scene.boxes[at] as Box;
  if (!hasDetail(view.camera.scale)) return "body";
  if (box.kind === "layer" && view.facts.switchable[box.node] && contains(badgeOf(box), point)) return "badge";
  return box.kind === "group" && contains(chevronOf(box), point) ? "chevron" : "body";
}

function contains(rect: Rect, { x, y }: { x: number; y: number }): boolean {
  return x >= rect.x && x <= rect.x + rect.width && y >= rect.y && y <= rect.y + rect.height;
}

/** Returns how far a point is from a line of points. */
function distance(points: readonly number[], { x, y }: { x: number; y: number }): number {
  let least = Number.POSITIVE_INFINITY;
  for (let at = 2; at + 1 < points.length; at += 2) {
    const [ax, ay] = [points[at - 2] as number, points[at - 1] as number];
    const [dx, dy] = [(points[at] as number) - ax, (points[at + 1] as number) - ay];
    const length = dx * dx + dy * dy;
    const share = length > 0 ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length)) : 0;
    least = Math.min(least, Math.hypot(x - ax - share * dx, y - ay - share * dy));
  }
  return least;
}
