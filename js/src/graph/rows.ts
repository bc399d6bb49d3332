/** What of a scene lies in a rectangle: boxes and wires, found by the rows that they cross. */
import type { Rect } from "./camera";
import type { Scene } from "./layout";

/** Height of a row; a few boxes high, so that a screen at scale 1 asks a handful of rows. */
const ROW = 512;

export interface Rows {
  /** Frames (unfolded groups) in sight, outermost first; boxes that hold nothing; wires. */
  find(rect: Rect): { frames: number[]; boxes: number[]; wires: number[] };
}

export function createRows(scene: Scene): Rows {
  const count = Math.max(1, Math.ceil(scene.height / ROW) + 1);
  const boxes: number[][] = Array.from({ length: count }, () => []);
  const wires: number[][] = Array.from({ length: count }, () => []);
  const frames: number[] = [];
  const bounds = new Float64Array(scene.wires.length * 4);
  const rowOf = (y: number): number => Math.min(count - 1, Math.max(0, Math.floor(y / ROW)));
  const put = (rows: number[][], what: number, top: number, bottom: number): void => {
    for (let row = rowOf(top); row <= rowOf(bottom); row++) rows[row]?.push(what);
  };
  scene.boxes.forEach((box, at) => {
    if (box.open) frames.push(at);
    else put(boxes, at, box.y, box.y + box.height);
  });
  scene.wires.forEach(({ points }, at) => {
    let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let point = 0; point + 1 < points.length; point += 2) {
      const [x, y] = [points[point] as number, points[point + 1] as number];
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
    bounds.set([left, right, top, bottom], at * 4);
    put(wires, at, top, bottom);
  });
  // A box or wire in many rows is met once: it remembers the search that met it.
  const metBox = new Uint32Array(scene.boxes.length);
  const metWire = new Uint32Array(scene.wires.length);
  let search = 0;
  return {
    find(rect) {
      search += 1;
      const [right, bottom] = [rect.x + rect.width, rect.y + rect.height];
      const found = { frames: [] as number[], boxes: [] as number[], wires: [] as number[] };
      for (const at of frames) {
        const box = scene.boxes[at];
        if (box && box.x < right && rect.x < box.x + box.width && box.y < bottom && rect.y < box.y + box.height) {
          found.frames.push(at);
        }
      }
      for (let row = rowOf(rect.y); row <= rowOf(bottom); row++) {
        for (const at of boxes[row] ?? []) {
          const box = scene.boxes[at];
          if (!box || metBox[at] === search) continue;
          metBox[at] = search;
          if (box.x < right && rect.x < box.x + box.width && box.y < bottom && rect.y < box.y + box.height) {
            found.boxes.push(at);
          }
        }
        for (const at of wires[row] ?? []) {
          if (metWire[at] === search) continue;
          metWire[at] = search;
          const [x0, x1, y0, y1] = [bounds[at * 4], bounds[at * 4 + 1], bounds[at * 4 + 2], bounds[at * 4 + 3]];
          if (
            (x0 as number) <= right &&
            (x1 as number) >= rect.x &&
            (y0 as number) <= bottom &&
            (y1 as number) >= rect.y
          ) {
            found.wires.push(at);
          }
        }
      }
      return found;
    },
  };
}
