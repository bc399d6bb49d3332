/** Pointer and wheel on the canvas: pan, zoom, click, box selection, hover. */
import { clear, foldAt, toggle } from "./actions";
import { bounded, boundedScale, panned, zoomedAt } from "./camera";
import { boxesIn, type Hit, hitTest } from "./hit";
import type { View } from "./view";

/** A pointer that moves less than this has clicked. */
const CLICK_PX = 4;
/** A pause this long ends a turn of the wheel: until then it stays with what it began on, as in nested scrolling. */
const WHEEL_PAUSE_MS = 350;
const WHEEL_LINE_PX = 16; // deltaMode 1, as browsers count a line
/** Doublings of the scale for a pixel of the wheel, and the most for one event (a notch of a mouse is 100 pixels and more). */
const ZOOM_PER_PX = 0.01;
const ZOOM_AT_MOST = 0.4;

export interface PointerParts {
  focus(): void;
  hover(hit: Hit | null, x: number, y: number): void;
  menu(x: number, y: number): void;
}

interface Drag {
  kind: "pan" | "box";
  x: number;
  y: number;
  moved: boolean;
  add: boolean;
}

export function attachPointer(view: View, parts: PointerParts): () => void {
  const { canvas } = view;
  const stop = new AbortController();
  const { signal } = stop;
  const fingers = new Map<number, { x: number; y: number }>();
  let drag: Drag | null = null;

  const place = (event: MouseEvent): { x: number; y: number } => {
    const bounds = canvas.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  };
  const over = (hit: Hit | null, x: number, y: number): void => {
    const box = hit?.box ?? -1;
    const wire = hit?.wire ?? -1;
    if (box !== view.hovered || wire !== view.hoveredWire) {
      view.hovered = box;
      view.hoveredWire = wire;
      const shown = view.scene.boxes[box];
      view.store.setHovered(shown?.kind === "layer" ? shown.node : -1);
      view.invalidate();
    }
    canvas.style.cursor = cursorOf(view, hit, drag);
    parts.hover(hit, x, y);
  };

  const down = (event: PointerEvent): void => {
    parts.focus();
    const at = place(event);
    fingers.set(event.pointerId, at);
    if (event.button !== 0) return;
    canvas.setPointerCapture?.(event.pointerId);
    const box = event.shiftKey || view.boxMode;
    drag = { kind: box ? "box" : "pan", ...at, moved: false, add: event.shiftKey || event.ctrlKey || event.metaKey };
    parts.hover(null, 0, 0);
  };

  const move = (event: PointerEvent): void => {
    const at = place(event);
    const before = fingers.get(event.pointerId);
    if (before) fingers.set(event.pointerId, at);
    if (before && fingers.size === 2) {
      pinch(view, fingers, event.pointerId, before);
      drag = null;
      return;
    }
    if (!drag) {
      if (event.pointerType !== "touch") over(hitTest(view, at.x, at.y), at.x, at.y);
      return;
    }
    if (!drag.moved && Math.hypot(at.x - drag.x, at.y - drag.y) < CLICK_PX) return;
    drag.moved = true;
    canvas.style.cursor = drag.kind === "box" ? "crosshair" : "grabbing";
    if (drag.kind === "pan") {
      view.look(panned(view.camera, at.x - (before ?? drag).x, at.y - (before ?? drag).y), false);
    } else {
      const [a, b] = [view.world(drag.x, drag.y), view.world(at.x, at.y)];
      view.marquee = {
        x: Math.min(a.x, b.x),
        y: Math.min(a.y, b.y),
        width: Math.abs(a.x - b.x),
        height: Math.abs(a.y - b.y),
      };
      view.invalidate();
    }
  };

  const up = (event: PointerEvent): void => {
    fingers.delete(event.pointerId);
    const ended = drag;
    drag = null;
    if (!ended || event.button !== 0) return;
    if (ended.kind === "box" && ended.moved) selectBox(view, ended.add);
    else if (!ended.moved) click(view, hitTest(view, ended.x, ended.y), ended.add);
    canvas.style.cursor = "";
  };

  const cancel = (event: PointerEvent): void => {
    fingers.delete(event.pointerId);
    drag = null;
    view.marquee = null;
    view.invalidate();
  };

  const double = (event: MouseEvent): void => {
    const at = place(event);
    const hit = hitTest(view, at.x, at.y);
    if (hit.part === "body" && view.scene.boxes[hit.box]?.kind === "group") foldAt(view, hit.box);
  };

  const menu = (event: MouseEvent): void => {
    // JupyterLab's own menu would open above ours.
    event.preventDefault();
    event.stopPropagation();
    const at = place(event);
    const { box } = hitTest(view, at.x, at.y);
    const selected = view.selected();
    if (box >= 0 && !selected.has(box)) view.pick(box);
    else if (box >= 0) view.cursor = view.keyOf(box);
    parts.menu(at.x, at.y);
  };

  // Else the browser takes the focus away from the list again: a canvas cannot have it.
  canvas.addEventListener("mousedown", (event) => event.preventDefault(), { signal });
  canvas.addEventListener("pointerdown", down, { signal });
  canvas.addEventListener("pointermove", move, { signal });
  canvas.addEventListener("pointerup", up, { signal });
  canvas.addEventListener("pointercancel", cancel, { signal });
  canvas.addEventListener("pointerleave", () => over(null, 0, 0), { signal });
  canvas.addEventListener("dblclick", double, { signal });
  canvas.addEventListener("contextmenu", menu, { signal });
  attachWheel(view, signal);
  return () => stop.abort();
}

function cursorOf(view: View, hit: Hit | null, drag: Drag | null): string {
  if (drag?.moved) return drag.kind === "box" ? "crosshair" : "grabbing";
  if (hit && hit.box >= 0) return "pointer";
  return view.boxMode ? "crosshair" : "grab";
}

function click(view: View, hit: Hit, add: boolean): void {
  const box = view.scene.boxes[hit.box];
  if (!box) {
    if (!add) clear(view);
  } else if (hit.part === "badge") {
    view.cursor = view.keyOf(hit.box);
    toggle(view, [box.node]);
  } else if (hit.part === "chevron") foldAt(view, hit.box);
  else view.pick(hit.box, add);
}

function selectBox(view: View, add: boolean): void {
  const { marquee } = view;
  view.marquee = null;
  view.invalidate();
  if (!marquee) return;
  const held = boxesIn(view, marquee).flatMap((at) => view.layersOf(at));
  view.select(add ? [...view.store.selection, ...held] : held, held.length === 1 ? (held[0] as number) : -1);
}

function pinch(
  view: View,
  fingers: ReadonlyMap<number, { x: number; y: number }>,
  moved: number,
  before: { x: number; y: number },
): void {
  const now = fingers.get(moved);
  const other = [...fingers].find(([id]) => id !== moved)?.[1];
  if (!now || !other) return;
  const factor =
    Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
  const scale = boundedScale(view.camera.scale * factor, view.scene, view.size);
  const [x, y] = [(now.x + other.x) / 2, (now.y + other.y) / 2];
  const camera = zoomedAt(view.camera, (before.x + other.x) / 2, (before.y + other.y) / 2, scale);
  view.look(panned(camera, x - (before.x + other.x) / 2, y - (before.y + other.y) / 2), false);
}

/**
 * The wheel behaves as in any scrolled area inside a page: a turn that began here moves the graph, one that began on the
 * page passes over, and at the graph's end the page goes on. With ctrl or cmd, and by pinching, it zooms.
 */
function attachWheel(view: View, signal: AbortSignal): void {
  let owner: "graph" | "page" = "page";
  let last = Number.NEGATIVE_INFINITY;
  const wheel = (event: WheelEvent): void => {
    const inside = event.target === view.canvas;
    if (event.timeStamp - last > WHEEL_PAUSE_MS) owner = inside ? "graph" : "page";
    last = event.timeStamp;
    if (!inside) return;
    const unit = event.deltaMode === 1 ? WHEEL_LINE_PX : event.deltaMode === 2 ? view.size.height : 1;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault(); // else the browser zooms the page
      const doublings = Math.min(ZOOM_AT_MOST, Math.max(-ZOOM_AT_MOST, -event.deltaY * unit * ZOOM_PER_PX));
      const { left, top } = view.canvas.getBoundingClientRect();
      view.zoom(2 ** doublings, event.clientX - left, event.clientY - top, false);
      return;
    }
    if (owner !== "graph") return;
    const [dx, dy] = event.shiftKey && event.deltaX === 0 ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
    const to = bounded(panned(view.camera, -dx * unit, -dy * unit), view.scene, view.size);
    if (to.x === view.camera.x && to.y === view.camera.y) {
      owner = "page";
      return;
    }
    event.preventDefault();
    view.look(to, false);
  };
  // On the window, because a turn that began outside must be known when it comes in.
  window.addEventListener("wheel", wheel, { passive: false, capture: true, signal });
}
