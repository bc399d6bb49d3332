/** What the parts of the graph share: the scene, where the viewer stands, what the pointer and the keyboard are on. */
import type { Store } from "../store";
import { readTheme, type Theme } from "../theme";
import {
  between,
  bounded,
  boundedScale,
  type Camera,
  centred,
  fitScale,
  fitted,
  inSight,
  MARGIN,
  overlaps,
  type Rect,
  type Size,
  toScreen,
  toWorld,
  zoomedAt,
} from "./camera";
import { createFacts, type Facts } from "./facts";
import { type KernelFrame, kernelFrames } from "./kernels";
import type { Box, Layout, Scene } from "./layout";
import { createRows, type Rows } from "./rows";

/** What a box stands for, whatever scene it is in: a node, or -2 - group; -1 is nothing. */
export type Key = number;
export const NOTHING: Key = -1;
export const keyOfGroup = (group: number): Key => -2 - group;
export const groupOfKey = (key: Key): number => (key <= -2 ? -2 - key : -1);

const GLIDE_MS = 220;
/** Zoomed out further than this, what is jumped to could not be read: the jump zooms in. */
const READABLE = 0.6;
/** At this scale a box is a spot. */
const DUST = 0.15;

export class View {
  readonly context: CanvasRenderingContext2D | null;
  camera: Camera = { x: 0, y: 0, scale: 1 };
  size: Size = { width: 0, height: 0 };
  ratio = 1;
  scene: Scene;
  rows: Rows;
  theme: Theme;
  facts: Facts;
  kernels: readonly KernelFrame[];
  /** Grows with every change of scene, data, colour or theme: what is drawn from them is old then. */
  version = 0;
  hovered = -1; // box
  hoveredWire = -1;
  cursor: Key = NOTHING;
  marquee: Rect | null = null; // in the world
  boxMode = false;
  matches: ReadonlySet<number> = new Set(); // layers found by the search
  private picked: ReadonlyMap<number, number> | null = null;
  private frame = 0;
  /** What a resize made of the camera, and what it would be with room for it: until it moves, that comes back. */
  private squeezed: { free: Camera; shown: Camera } | null = null;
  private lastWidth = 0; // JupyterLab takes cells off the page for a moment: they have no size then
  private glide: { from: Camera; to: Camera; start: number } | null = null;
  private anchor: Key = NOTHING;
  private own = false;
  private placed = false;
  private readonly painters = new Set<() => void>();
  private readonly watchers = new Set<() => void>();

  constructor(
    readonly host: HTMLElement,
    readonly canvas: HTMLCanvasElement,
    readonly store: Store,
    private readonly layout: Layout,
  ) {
    this.context = canvas.getContext("2d");
    this.scene = layout.scene(store.open);
    this.rows = createRows(this.scene);
    this.theme = readTheme(host);
    this.facts = createFacts(store, this.theme);
    this.kernels = kernelFrames(this);
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    this.glide = null;
    this.painters.clear();
    this.watchers.clear();
  }

  // -- drawing --------------------------------------------------------------------------------------------------------

  /** Calls at each frame that is drawn; nothing is drawn while nothing changes. */
  onPaint(paint: () => void): void {
    this.painters.add(paint);
  }

  /** Calls after the cursor, the mode or the facts changed. */
  onChange(changed: () => void): void {
    this.watchers.add(changed);
  }

  changed(): void {
    for (const watcher of this.watchers) watcher();
  }

  invalidate(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = 0;
      this.step(now);
      this.draw();
    });
  }

  private draw(): void {
    if (this.size.width > 0 && this.size.height > 0) for (const paint of this.painters) paint();
  }

  private step(now: number): void {
    if (!this.glide) return;
    const { from, to } = this.glide;
    const share = Math.min(1, Math.max(0, (now - this.glide.start) / GLIDE_MS));
    this.camera = share < 1 ? between(from, to, 1 - (1 - share) ** 3, this.size) : to;
    if (share < 1) this.invalidate();
    else this.glide = null;
  }

  get gliding(): boolean {
    return this.glide !== null;
  }

  // -- data -----------------------------------------------------------------------------------------------------------

  /** Takes in new figures, another quantity, or another theme. */
  refresh(): void {
    this.facts = createFacts(this.store, this.theme);
    this.kernels = kernelFrames(this);
    this.version += 1;
    this.changed();
    this.invalidate();
  }

  retheme(): void {
    this.theme = readTheme(this.host);
    this.refresh();
  }

  /** Lays out what is unfolded now; what was folded or unfolded stays where it is on screen. */
  relayout(): void {
    const anchor = this.boxOfKey(this.anchor) >= 0 ? this.anchor : this.middle();
    const before = this.scene.boxes[this.boxOfKey(anchor)];
    const was = before && toScreen(this.camera, before.x + before.width / 2, before.y);
    this.scene = this.layout.scene(this.store.open);
    this.rows = createRows(this.scene);
    this.kernels = kernelFrames(this);
    this.picked = null;
    this.hovered = -1;
    this.hoveredWire = -1;
    this.anchor = NOTHING;
    this.version += 1;
    this.glide = null;
    const after = this.scene.boxes[this.boxOfKey(anchor)];
    if (was && after) {
      const { scale } = this.camera;
      const camera = { x: after.x + after.width / 2 - was.x / scale, y: after.y - was.y / scale, scale };
      this.camera = bounded(camera, this.scene, this.size);
    }
    this.changed();
    this.invalidate();
  }

  /** Returns the box nearest to the middle of what is in sight, as a key. */
  private middle(): Key {
    const seen = inSight(this.camera, this.size);
    const [x, y] = [seen.x + seen.width / 2, seen.y + seen.height / 2];
    let [best, nearest] = [NOTHING, Number.POSITIVE_INFINITY];
    for (const at of this.rows.find(seen).boxes) {
      const box = this.scene.boxes[at] as Box;
      const distance = Math.hypot(box.x + box.width / 2 - x, box.y + box.height / 2 - y);
      if (distance < nearest) [best, nearest] = [this.keyOf(at), distance];
    }
    return best;
  }

  // -- boxes ----------------------------------------------------------------------------------------------------------

  keyOf(at: number): Key {
    const box = this.scene.boxes[at];
    if (!box) return NOTHING;
    return box.kind === "group" ? keyOfGroup(box.group) : box.node;
  }

  boxOfKey(key: Key): number {
    if (key === NOTHING) return -1;
    return key >= 0 ? this.scene.boxOf(key) : this.scene.boxOfGroup(groupOfKey(key));
  }

  /** Returns the layers that a box stands for: one, those of a scope, or none (inputs and outputs). */
  layersOf(at: number): number[] {
    const box = this.scene.boxes[at];
    if (box?.kind === "group") return this.store.model.layersIn(box.group);
    return box?.kind === "layer" ? [box.node] : [];
  }

  /** By box: how many of its layers are selected. */
  selected(): ReadonlyMap<number, number> {
    if (this.picked) return this.picked;
    const picked = new Map<number, number>();
    for (const layer of this.store.selection) {
      const at = this.scene.boxOf(layer);
      if (at >= 0) picked.set(at, (picked.get(at) ?? 0) + 1);
    }
    this.picked = picked;
    return picked;
  }

  // -- selection ------------------------------------------------------------------------------------------------------

  /** Stands on a box and selects what it holds; `add` keeps what is selected, and takes out what was selected already. */
  pick(at: number, add = false): void {
    this.cursor = this.keyOf(at);
    const layers = this.layersOf(at);
    const before = this.store.selection;
    const focus = layers.length === 1 ? (layers[0] as number) : -1;
    if (!add) this.select(layers, focus);
    else if (layers.length > 0 && layers.every((layer) => before.has(layer))) {
      const out = new Set(layers);
      this.select([...before].filter((layer) => !out.has(layer)));
    } else this.select([...before, ...layers], focus);
  }

  /** Selects without moving the camera: the user has just pointed at it. */
  select(layers: Iterable<number>, focus?: number): void {
    this.own = true;
    this.store.select(layers, focus);
    this.own = false;
  }

  /** Follows a selection; one made elsewhere (table, findings) is brought into sight. */
  selectionChanged(): void {
    this.picked = null;
    if (!this.own) {
      const target = this.store.focus >= 0 ? this.store.focus : [...this.store.selection][0];
      if (target !== undefined) {
        this.cursor = target;
        this.show(target);
      } else this.cursor = NOTHING;
    }
    this.changed();
    this.invalidate();
  }

  // -- folding --------------------------------------------------------------------------------------------------------

  fold(group: number, open: boolean): void {
    if (group <= 0) return;
    this.anchor = keyOfGroup(group);
    const groups = new Set(this.store.open);
    if (open) groups.add(group);
    else {
      groups.delete(group);
      // What stood inside is hidden now: the keyboard stands on what hides it.
      const at = this.scene.boxes[this.boxOfKey(this.cursor)];
      const around = at
        ? this.store.model.lineage(at.kind === "group" ? at.group : this.store.model.groupOf(at.node))
        : [];
      if (around.includes(group)) this.cursor = keyOfGroup(group);
    }
    this.store.setOpen(groups);
  }

  // -- the camera -----------------------------------------------------------------------------------------------------

  resize(size: Size, ratio: number): void {
    const first = !this.placed && size.width > 0 && size.height > 0;
    this.size = size;
    this.ratio = ratio;
    this.canvas.width = Math.max(1, Math.round(size.width * ratio));
    this.canvas.height = Math.max(1, Math.round(size.height * ratio));
    if (first) {
      this.placed = true;
      this.camera = this.opening();
      if (this.store.focus >= 0) this.show(this.store.focus, false);
    } else if (size.width > 0) {
      const camera = this.camera === this.squeezed?.shown ? this.squeezed.free : this.camera;
      const free = { ...camera, x: camera.x - (size.width - this.lastWidth) / 2 / camera.scale };
      this.camera = bounded(free, this.scene, size);
      this.squeezed = { free, shown: this.camera };
    }
    if (size.width > 0) this.lastWidth = size.width;
    // A canvas that gets a size is blank, and sizes are observed after a frame's callbacks: it would be shown so for one.
    if (first) this.invalidate();
    else this.draw();
  }

  /** Returns the camera at the top of the graph, readable, in the middle of the first boxes. */
  opening(): Camera {
    const { boxes } = this.scene;
    const leaves = boxes.filter((box) => !box.open);
    const top = leaves.reduce((least, box) => Math.min(least, box.y), Number.POSITIVE_INFINITY);
    const first = leaves.filter((box) => box.y < top + 8);
    if (first.length === 0) return { x: 0, y: 0, scale: 1 };
    const left = Math.min(...first.map((box) => box.x));
    const right = Math.max(...first.map((box) => box.x + box.width));
    const middle = (left + right) / 2;
    const camera = { x: middle - this.size.width / 2, y: -MARGIN / 2, scale: 1 };
    return this.scene.height + MARGIN < this.size.height ? fitted(whole(this.scene), this.size) : this.kept(camera);
  }

  look(camera: Camera, smooth = true): void {
    const scale = boundedScale(camera.scale, this.scene, this.size);
    const to = this.kept({ ...camera, scale });
    if (!smooth || reducedMotion() || this.size.width === 0) {
      this.glide = null;
      this.camera = to;
    } else this.glide = { from: this.camera, to, start: performance.now() };
    this.invalidate();
  }

  private kept(camera: Camera): Camera {
    return bounded(camera, this.scene, this.size);
  }

  home(): void {
    this.look(this.opening());
  }

  fit(): void {
    const selected = [...this.selected().keys()];
    if (selected.length < 2) {
      this.look(this.fitting());
      return;
    }
    this.look(fitted(around(selected.map((at) => this.scene.boxes[at] as Box)), this.size));
  }

  /** Returns the camera that shows the whole graph; of a tall one first its width, because the whole would be dust. */
  private fitting(): Camera {
    const all = fitted(whole(this.scene), this.size);
    if (all.scale >= DUST) return all;
    const scale = Math.max(all.scale, Math.min(1, fitScale({ width: this.scene.width, height: 1 }, this.size)));
    const now = this.glide?.to ?? this.camera;
    if (Math.abs(now.scale - scale) < 0.01 * scale) return all;
    const middle = now.y + this.size.height / 2 / now.scale;
    return centred(this.scene.width / 2, middle, scale, this.size);
  }

  zoom(factor: number, x = this.size.width / 2, y = this.size.height / 2, smooth = true): void {
    const from = this.glide?.to ?? this.camera;
    const scale = boundedScale(from.scale * factor, this.scene, this.size);
    this.look(zoomedAt(from, x, y, scale), smooth);
  }

  /** Brings a box into sight, readable, moving no more than needed. */
  show(key: Key, smooth = true): void {
    const box = this.scene.boxes[this.boxOfKey(key)];
    if (!box || this.size.width === 0) return;
    const camera = this.glide?.to ?? this.camera;
    const height = box.open ? Math.min(box.height, 40) : box.height; // of a frame, its title
    const target = { x: box.x, y: box.y, width: box.width, height };
    const margin = Math.min(MARGIN, this.size.height / 6) / camera.scale;
    const seen = inSight(camera, this.size);
    const inner = {
      x: seen.x + margin,
      y: seen.y + margin,
      width: seen.width - 2 * margin,
      height: seen.height - 2 * margin,
    };
    const inside = target.y >= inner.y && target.y + target.height <= inner.y + inner.height && overlaps(target, inner);
    if (inside && camera.scale >= READABLE) return;
    const scale = camera.scale >= READABLE ? camera.scale : 1;
    this.look(centred(target.x + target.width / 2, target.y + target.height / 2, scale, this.size), smooth);
  }

  /** Moves to the title of a frame, at the scale there is. */
  toTop(key: Key): void {
    const box = this.scene.boxes[this.boxOfKey(key)];
    if (!box) return;
    const { scale } = this.camera;
    const x = box.x + box.width / 2 - this.size.width / 2 / scale;
    this.look({ x, y: box.y - MARGIN / scale, scale });
  }

  world(x: number, y: number): { x: number; y: number } {
    return toWorld(this.camera, x, y);
  }

  /** Returns a box in pixels of the canvas. */
  onScreen(at: number): Rect {
    const box = this.scene.boxes[at] as Box;
    const { x, y } = toScreen(this.camera, box.x, box.y);
    return { x, y, width: box.width * this.camera.scale, height: box.height * this.camera.scale };
  }
}

function whole(scene: Scene): Rect {
  return { x: 0, y: 0, width: scene.width, height: scene.height };
}

function around(boxes: readonly Box[]): Rect {
  const x = Math.min(...boxes.map((box) => box.x));
  const y = Math.min(...boxes.map((box) => box.y));
  const right = Math.max(...boxes.map((box) => box.x + box.width));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height));
  return { x, y, width: right - x, height: bottom - y };
}

export function reducedMotion(): boolean {
  return globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
}
