/** Frames around layers that one kernel computes, as it was measured: drawn behind the boxes, named when pointed at. */
import { duration, float } from "../inspector/numbers";
import type { Kernel } from "../protocol";
import { mix } from "../theme";
import type { Rect } from "./camera";
import { brief } from "./describe";
import type { Box } from "./layout";
import type { View } from "./view";
import { traceWire } from "./wires";

/** How far a frame stands out of the boxes. */
const GAP = 7;
const EDGE = 1.6;
/** At smaller scales frames and boxes are one. */
const SEEN = 0.12;
const NAME = 60;

export interface KernelFrame {
  kernel: Kernel;
  boxes: readonly number[];
  /** Wires between its boxes. */
  wires: readonly number[];
  around: Rect;
}

/** Returns the kernels that compute layers in more than one visible box. */
export function kernelFrames(view: View): KernelFrame[] {
  const { scene, store } = view;
  const found: KernelFrame[] = [];
  const within = new Map<number, number[]>(); // by box: places in `found`
  for (const kernel of store.preview ? [] : store.figures.kernels) {
    if (kernel.kind !== "layer" || kernel.layers.length < 2) continue;
    const boxes = [...new Set(kernel.layers.map((layer) => scene.boxOf(layer)))].filter((at) => at >= 0);
    if (boxes.length < 2) continue;
    for (const at of boxes) within.set(at, [...(within.get(at) ?? []), found.length]);
    found.push({ kernel, boxes, wires: [], around: around(boxes.map((at) => scene.boxes[at] as Box)) });
  }
  if (found.length === 0) return found;
  const wires = found.map((): number[] => []);
  scene.wires.forEach((wire, index) => {
    const [from, to] = [within.get(wire.from), within.get(wire.to)];
    for (const place of from ?? []) if (to?.includes(place)) wires[place]?.push(index);
  });
  return found.map((frame, place) => ({ ...frame, wires: wires[place] as number[] }));
}

function around(boxes: readonly Box[]): Rect {
  const x = Math.min(...boxes.map((box) => box.x)) - GAP;
  const y = Math.min(...boxes.map((box) => box.y)) - GAP;
  const right = Math.max(...boxes.map((box) => box.x + box.width)) + GAP;
  const bottom = Math.max(...boxes.map((box) => box.y + box.height)) + GAP;
  return { x, y, width: right - x, height: bottom - y };
}

/** Draws the frames in sight. One shape each: the edge first, then on it the ground, a little smaller. */
export function drawKernels(context: CanvasRenderingContext2D, view: View, seen: Rect): void {
  const { theme, camera } = view;
  if (camera.scale < SEEN) return;
  const hovered = hoveredKernel(view);
  const edge = Math.max(EDGE, 1 / camera.scale);
  context.lineCap = "round";
  for (const frame of view.kernels) {
    const { x, y, width, height } = frame.around;
    if (y > seen.y + seen.height || y + height < seen.y || x > seen.x + seen.width || x + width < seen.x) continue;
    const strong = frame.kernel === hovered;
    shape(context, view, frame, GAP + edge, mix(theme.paper, theme.accent, strong ? 0.95 : 0.5));
    shape(context, view, frame, GAP, mix(theme.paper, theme.accent, theme.dark ? 0.24 : 0.13));
  }
  context.lineCap = "butt";
}

function shape(
  context: CanvasRenderingContext2D,
  view: View,
  { boxes, wires }: KernelFrame,
  gap: number,
  colour: string,
): void {
  context.fillStyle = colour;
  context.strokeStyle = colour;
  context.lineWidth = 2 * gap + 4;
  context.beginPath();
  for (const at of wires) traceWire(context, view.scene.wires[at]?.points ?? [], true);
  context.stroke();
  context.beginPath();
  for (const at of boxes) {
    const box = view.scene.boxes[at] as Box;
    const sheet = box.kind === "group" && !box.open ? 4 : 0;
    context.roundRect(box.x - gap, box.y - gap, box.width + 2 * gap, box.height + sheet + 2 * gap, 6 + gap);
  }
  context.fill();
}

/** Returns the kernel of the layer that is pointed at; null where it has none with a frame. */
function hoveredKernel(view: View): Kernel | null {
  const box = view.scene.boxes[view.hovered];
  return box?.kind === "layer" ? view.store.kernel(box.node) : null;
}

/** Draws the name and the time of the kernel that is pointed at, on top of its frame. */
export function drawKernelName(context: CanvasRenderingContext2D, view: View): void {
  const kernel = hoveredKernel(view);
  const frame = kernel && view.kernels.find((one) => one.kernel === kernel);
  if (!frame) return;
  const { theme, camera } = view;
  const size = Math.min(22, Math.max(11, 11 / camera.scale));
  const text = `${brief(frame.kernel.name, NAME)} · ${duration(float(frame.kernel.us))}`;
  context.font = `600 ${size}px ${theme.font}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const width = context.measureText(text).width + size;
  const { x, y } = frame.around;
  context.fillStyle = theme.accent;
  context.beginPath();
  context.roundRect(x, y - size * 1.5, width, size * 1.6, size * 0.3);
  context.fill();
  context.fillStyle = theme.paper;
  context.fillText(text, x + size / 2, y - size * 0.68);
}
