/** Where the viewer stands: the world point at the canvas's top left corner, and pixels to a unit of the world. */

export interface Camera {
  readonly x: number;
  readonly y: number;
  readonly scale: number;
}

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Size {
  width: number;
  height: number;
}

export const MAX_SCALE = 3;
/** A tall net that fits is dust; it may still be looked at whole, but not smaller than its fit. */
const SMALLEST_SCALE = 0.05;
/** Pixels of paper that may be seen around the graph. */
export const MARGIN = 48;

export function toWorld(camera: Camera, x: number, y: number): { x: number; y: number } {
  return { x: camera.x + x / camera.scale, y: camera.y + y / camera.scale };
}

export function toScreen(camera: Camera, x: number, y: number): { x: number; y: number } {
  return { x: (x - camera.x) * camera.scale, y: (y - camera.y) * camera.scale };
}

/** Returns the part of the world that is in sight. */
export function inSight(camera: Camera, view: Size): Rect {
  return { x: camera.x, y: camera.y, width: view.width / camera.scale, height: view.height / camera.scale };
}

export function panned(camera: Camera, dx: number, dy: number): Camera {
  return { x: camera.x - dx / camera.scale, y: camera.y - dy / camera.scale, scale: camera.scale };
}

/** Returns the camera after a zoom that keeps the world point under a pixel where it is. */
export function zoomedAt(camera: Camera, x: number, y: number, scale: number): Camera {
  const at = toWorld(camera, x, y);
  return { x: at.x - x / scale, y: at.y - y / scale, scale };
}

/** Returns the scale at which the world just fits. */
export function fitScale(world: Size, view: Size): number {
  return Math.min(
    1,
    Math.max(1, view.width - 2 * MARGIN) / Math.max(1, world.width),
    Math.max(1, view.height - 2 * MARGIN) / Math.max(1, world.height),
  );
}

export function boundedScale(scale: number, world: Size, view: Size): number {
  return Math.min(MAX_SCALE, Math.max(Math.min(SMALLEST_SCALE, fitScale(world, view)), scale));
}

/** Returns a camera that shows a rectangle whole and centred, no larger than `largest`. */
export function fitted(rect: Rect, view: Size, largest = 1): Camera {
  const scale = Math.min(largest, fitScale(rect, view));
  return centred(rect.x + rect.width / 2, rect.y + rect.height / 2, scale, view);
}

export function centred(x: number, y: number, scale: number, view: Size): Camera {
  return { x: x - view.width / 2 / scale, y: y - view.height / 2 / scale, scale };
}

/** Returns the camera moved so that no more than the margin beyond the world is seen; a world that fits stays in view whole. */
export function bounded(camera: Camera, world: Size, view: Size): Camera {
  const along = (at: number, extent: number, seen: number): number => {
    const margin = MARGIN / camera.scale;
    const [first, last] = [-margin, extent + margin - seen];
    return first <= last ? Math.min(last, Math.max(first, at)) : Math.min(first, Math.max(last, at));
  };
  return {
    x: along(camera.x, world.width, view.width / camera.scale),
    y: along(camera.y, world.height, view.height / camera.scale),
    scale: camera.scale,
  };
}

/** Returns the camera `share` of the way to another; zooming in and moving look like one motion. */
export function between(from: Camera, to: Camera, share: number, view: Size): Camera {
  const scale = from.scale * (to.scale / from.scale) ** share;
  const a = { x: from.x + view.width / 2 / from.scale, y: from.y + view.height / 2 / from.scale };
  const b = { x: to.x + view.width / 2 / to.scale, y: to.y + view.height / 2 / to.scale };
  return centred(a.x + (b.x - a.x) * share, a.y + (b.y - a.y) * share, scale, view);
}

export function overlaps(a: Rect, b: Rect): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}
