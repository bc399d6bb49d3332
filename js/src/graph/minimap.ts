/** The whole graph in a corner, with what is in sight; a drag on it moves the view. */
import { h } from "../dom";
import { fade } from "../theme";
import { brokenOf, fillOf } from "./boxes";
import { centred, inSight } from "./camera";
import type { Box } from "./layout";
import type { View } from "./view";

const WIDTH = 116;
const TALLEST = 190;
const SHORTEST = 56;
const PAD = 4;
/** In a narrower view the overview would hide more than it shows. */
const SMALLEST_VIEW = 460;
const BROKEN_PX = 2.5;

export interface Minimap {
  dispose(): void;
}

export function createMinimap(view: View): Minimap {
  const canvas = h("canvas", { class: "pe-graph-minimap", "aria-hidden": "true", title: "Overview: drag to move" });
  view.host.append(canvas);
  const context = canvas.getContext("2d");
  const base = document.createElement("canvas");
  let version = -1;
  let height = 0;

  /** A tall net would be a thread: the overview is stretched to its width. */
  const place = (): { x: number; y: number } => ({
    x: (WIDTH - 2 * PAD) / Math.max(1, view.scene.width),
    y: (height - 2 * PAD) / Math.max(1, view.scene.height),
  });
  const drawBase = (): void => {
    const { scene, ratio, theme } = view;
    height = Math.round(Math.min(TALLEST, Math.max(SHORTEST, (WIDTH * scene.height) / Math.max(1, scene.width))));
    for (const one of [canvas, base]) {
      one.width = Math.round(WIDTH * ratio);
      one.height = Math.round(height * ratio);
    }
    canvas.style.width = `${WIDTH}px`;
    canvas.style.height = `${height}px`;
    const onto = base.getContext("2d");
    if (!onto) return;
    onto.setTransform(ratio, 0, 0, ratio, 0, 0);
    onto.fillStyle = theme.paper2;
    onto.fillRect(0, 0, WIDTH, height);
    const scale = place();
    const draw = (box: Box, least: number): void => {
      const [width, tall] = [Math.max(least, box.width * scale.x), Math.max(least, box.height * scale.y)];
      onto.fillRect(PAD + box.x * scale.x, PAD + box.y * scale.y, width, tall);
    };
    onto.fillStyle = fade(theme.ink, 0.05);
    for (const box of scene.boxes) if (box.open) draw(box, 1);
    const broken: Box[] = [];
    for (const box of scene.boxes) {
      if (box.open) continue;
      onto.fillStyle = fillOf(view, box);
      draw(box, 1);
      if (brokenOf(view, box) === "now") broken.push(box);
    }
    for (const box of broken) {
      onto.fillStyle = fillOf(view, box);
      draw(box, BROKEN_PX);
    }
  };
  const draw = (): void => {
    const seen = inSight(view.camera, view.size);
    const all = seen.width >= view.scene.width && seen.height >= view.scene.height;
    canvas.hidden = all || view.size.width < SMALLEST_VIEW;
    if (canvas.hidden || !context) return;
    if (view.version !== version) {
      version = view.version;
      drawBase();
    }
    const { ratio, theme } = view;
    const scale = place();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(base, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = theme.accent;
    for (const at of view.selected().keys()) {
      const box = view.scene.boxes[at];
      if (box) context.fillRect(PAD + box.x * scale.x - 1, PAD + box.y * scale.y - 1, 4, 3);
    }
    const left = Math.max(1, PAD + seen.x * scale.x);
    const top = Math.max(1, PAD + seen.y * scale.y);
    const right = Math.min(WIDTH - 1, PAD + (seen.x + seen.width) * scale.x);
    const bottom = Math.min(height - 1, PAD + (seen.y + seen.height) * scale.y);
    const [width, tall] = [right - left, Math.max(3, bottom - top)];
    // What is out of sight fades; what is in sight keeps its colours.
    context.beginPath();
    context.rect(0, 0, WIDTH, height);
    context.rect(left, top, width, tall);
    context.fillStyle = fade(theme.paper, 0.5);
    context.fill("evenodd");
    context.lineWidth = 1.5;
    context.strokeStyle = theme.accent;
    context.strokeRect(left, top, width, tall);
  };
  const go = (event: PointerEvent): void => {
    if ((event.buttons & 1) === 0) return;
    const bounds = canvas.getBoundingClientRect();
    const scale = place();
    const x = (event.clientX - bounds.left - PAD) / scale.x;
    const y = (event.clientY - bounds.top - PAD) / scale.y;
    view.look(centred(x, y, view.camera.scale, view.size), false);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture?.(event.pointerId);
    go(event);
  });
  canvas.addEventListener("pointermove", go);
  view.onPaint(draw);
  return { dispose: () => canvas.remove() };
}
