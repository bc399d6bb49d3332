/** Draws boxes, each with as much in it as can be read at its size on screen. */
import { formatColour } from "../colours";
import { fade, inkOn, mix } from "../theme";
import type { Rect } from "./camera";
import type { GroupFacts } from "./facts";
import { type Box, TITLE_HEIGHT } from "./layout";
import { drawBroken, drawChevron, drawLock, drawOverruled } from "./marks";
import { fitText, oneLine, shortName, widthOf } from "./text";
import type { View } from "./view";

/** Scales from which on a box shows its op type, and everything. */
const NAMED = 0.2;
const FULL = 0.5;
const RADIUS = 5;
const PAD = 8;
const BADGE = { width: 34, height: 15 };
/** A narrower frame does not say how many layers it holds: a wire would run through the words. */
const COUNTED = 260;
const LINE_2 = 0.71; // where the second line of a layer's box stands, as a share of its height
const LINE_1 = 0.31;
/** Opacity of figures that belong to the plan before the last change. */
const OLD = 0.45;

/** Returns where the format badge of a layer's box lies; a click on it toggles. */
export function badgeOf(box: Box): Rect {
  const y = box.y + box.height * LINE_1 - BADGE.height / 2;
  return { x: box.x + box.width - PAD - BADGE.width + 2, y, ...BADGE };
}

/** Returns where the triangle that folds lies. */
export function chevronOf(box: Box): Rect {
  return { x: box.x, y: box.y, width: 24, height: box.open ? TITLE_HEIGHT : Math.min(box.height, 30) };
}

/** True where boxes are large enough on screen for their badges to be hit. */
export function hasDetail(scale: number): boolean {
  return scale >= FULL;
}

export function fonts(view: View): { strong: string; plain: string; small: string } {
  const { font } = view.theme;
  return { strong: `600 12px ${font}`, plain: `11px ${font}`, small: `600 10px ${font}` };
}

/** Draws the frames of unfolded groups, outermost first. */
export function drawFrames(context: CanvasRenderingContext2D, view: View, frames: readonly number[]): void {
  const { scale } = view.camera;
  const { theme } = view;
  for (const at of frames) {
    const box = view.scene.boxes[at] as Box;
    if (box.width * scale < 3 || box.height * scale < 3) continue;
    context.beginPath();
    if (scale > NAMED) context.roundRect(box.x, box.y, box.width, box.height, 8);
    else context.rect(box.x, box.y, box.width, box.height);
    context.fillStyle = fade(theme.ink, theme.dark ? 0.045 : 0.03);
    context.fill();
    context.lineWidth = Math.max(1, 0.6 / scale);
    context.strokeStyle = fade(theme.ink, theme.dark ? 0.22 : 0.16);
    context.stroke();
    if (box.height * scale > 40 && scale > 0.12) drawTitle(context, view, box);
  }
}

/** Draws the title of a frame; while its top is out of sight above, the title stays at the top of the view. */
function drawTitle(context: CanvasRenderingContext2D, view: View, box: Box): void {
  const { theme, facts, camera } = view;
  const group = facts.group(box.group);
  // Further out the title grows in the world, so that it can be read for longer.
  const size = Math.min(20, Math.max(12, 9.5 / camera.scale));
  const middle = box.y + TITLE_HEIGHT / 2;
  const label = view.store.model.structure.groups.label[box.group] ?? "";
  context.font = `600 ${size}px ${theme.font}`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  drawChevron(context, theme.muted, box.x + 13, middle, 9, true);
  let right = box.x + box.width - PAD;
  const barWidth = 44;
  if (box.width > 190 && camera.scale >= FULL) {
    drawShare(context, view, group, right - barWidth, middle - 3, barWidth, 6);
    right -= barWidth + 8;
    if (group.blacklisted > 0 && group.blacklisted === group.switchable) {
      drawLock(context, theme.muted, right - 9, middle - 6, 11);
      right -= 15;
    }
    if (box.width > COUNTED) {
      context.font = fonts(view).plain;
      const count = layersText(group);
      context.fillStyle = theme.muted;
      context.textAlign = "right";
      context.fillText(count, right, middle + 0.5);
      right -= widthOf(context, count) + 8;
      context.textAlign = "left";
    }
    context.font = fonts(view).strong;
  }
  if (group.brokenNow > 0) {
    drawBroken(context, theme, "now", box.x + 30, middle, 7, facts.stale);
  }
  const left = box.x + (group.brokenNow > 0 ? 42 : 24);
  context.fillStyle = theme.ink;
  context.fillText(fitText(context, label, right - left), left, middle + 0.5);
}

/** Draws how much of a group runs low: a bar, full when all that can be switched runs low. */
function drawShare(
  context: CanvasRenderingContext2D,
  view: View,
  group: GroupFacts,
  x: number,
  y: number,
  width: number,
  height: number,
): void {
  const { theme, store } = view;
  context.fillStyle = formatColour("fp32", theme.dark);
  context.globalAlpha = group.switchable > 0 ? 1 : 0.3;
  context.fillRect(x, y, width, height);
  if (group.switchable > 0) {
    const low = Math.min(1, group.low / group.switchable) * width;
    context.fillStyle = formatColour(store.state.format, theme.dark);
    context.fillRect(x, y, low, height);
    if (group.int8 > 0) {
      const int8 = (low * group.int8) / group.low;
      context.fillStyle = formatColour("int8", theme.dark);
      context.fillRect(x + low - int8, y, int8, height);
    }
  }
  context.globalAlpha = 1;
  context.lineWidth = 1;
  context.strokeStyle = theme.paper;
  context.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
}

/** Draws everything that is not a frame. */
export function drawBoxes(context: CanvasRenderingContext2D, view: View, boxes: readonly number[]): void {
  const { scale } = view.camera;
  if (scale < NAMED) {
    drawDots(context, view, boxes);
    return;
  }
  context.textBaseline = "middle";
  for (const at of boxes) drawPlate(context, view, view.scene.boxes[at] as Box);
  if (scale < FULL) drawNames(context, view, boxes);
  else drawDetails(context, view, boxes);
  const radius = Math.min(14, 8 / Math.min(1, scale * 1.2));
  for (const at of boxes) {
    const box = view.scene.boxes[at] as Box;
    drawBroken(context, view.theme, brokenOf(view, box), box.x + 4, box.y + 3, radius, view.facts.stale);
    if (box.kind === "layer" && view.facts.overruled[box.node]) {
      drawOverruled(context, view.theme, box.x + box.width - 4, box.y + box.height - 3, radius);
    }
  }
}

export function brokenOf(view: View, box: Box): "no" | "alone" | "now" {
  if (box.kind === "layer") return view.facts.broken[box.node] ?? "no";
  if (box.kind !== "group") return "no";
  const group = view.facts.group(box.group);
  return group.brokenNow > 0 ? "now" : group.brokenAlone > 0 ? "alone" : "no";
}

export function fillOf(view: View, box: Box): string {
  if (box.kind === "layer") return view.facts.fill[box.node] ?? view.theme.paper2;
  return box.kind === "group" ? view.facts.group(box.group).fill : view.theme.paper2;
}

/** From far away a box is a spot of colour; where it has inf/NaN, a mark that does not shrink with it. */
function drawDots(context: CanvasRenderingContext2D, view: View, boxes: readonly number[]): void {
  const { scale } = view.camera;
  const least = 1 / scale; // no spot is smaller than a pixel
  const broken: Box[] = [];
  let last = "";
  for (const at of boxes) {
    const box = view.scene.boxes[at] as Box;
    const fill = fillOf(view, box);
    if (fill !== last) {
      context.fillStyle = fill;
      last = fill;
    }
    context.fillRect(box.x, box.y, Math.max(least, box.width), Math.max(least, box.height));
    if (scale > 0.03 && brokenOf(view, box) === "now") broken.push(box);
  }
  if (scale > 0.08) {
    context.lineWidth = 0.7 / scale;
    context.strokeStyle = fade(view.theme.ink, 0.3);
    for (const at of boxes) {
      const box = view.scene.boxes[at] as Box;
      context.strokeRect(box.x, box.y, box.width, box.height);
    }
  }
  for (const box of broken) {
    drawBroken(
      context,
      view.theme,
      "now",
      box.x + box.width / 2,
      box.y + box.height / 2,
      4.5 / scale,
      view.facts.stale,
    );
  }
}

function drawPlate(context: CanvasRenderingContext2D, view: View, box: Box): void {
  const { theme, facts } = view;
  const { x, y, width, height } = box;
  const fill = fillOf(view, box);
  const border = mix(fill, theme.ink, 0.38);
  context.lineWidth = 1.1;
  context.strokeStyle = border;
  if (box.kind === "group") {
    // A second sheet below: there is more inside.
    context.fillStyle = mix(fill, theme.paper, 0.35);
    context.beginPath();
    context.roundRect(x + 4, y + 4, width - 4, height, RADIUS + 1);
    context.fill();
    context.stroke();
  }
  context.beginPath();
  context.roundRect(x, y, width - (box.kind === "group" ? 4 : 0), height, pill(box) ? height / 2 : RADIUS);
  context.fillStyle = fill;
  context.fill();
  const fixed = box.kind === "layer" && facts.switchable[box.node] === 0;
  if (fixed) context.setLineDash([3, 3]);
  context.stroke();
  if (fixed) context.setLineDash([]);
}

function pill(box: Box): boolean {
  return box.kind === "input" || box.kind === "output";
}

function labelOf(view: View, box: Box): string {
  const { model } = view.store;
  if (box.kind === "layer") return model.op(box.node);
  return box.kind === "group" ? (model.structure.groups.label[box.group] ?? "") : model.name(box.node);
}

function inkOf(view: View, box: Box): string {
  if (box.kind === "layer") return view.facts.ink[box.node] ?? view.theme.ink;
  return box.kind === "group" ? view.facts.group(box.group).ink : view.theme.ink;
}

/** At middle distance a box holds one line, larger than its text is close by. */
function drawNames(context: CanvasRenderingContext2D, view: View, boxes: readonly number[]): void {
  const size = Math.min(21, 9.5 / view.camera.scale);
  context.font = `600 ${size}px ${view.theme.font}`;
  context.textAlign = "center";
  for (const at of boxes) {
    const box = view.scene.boxes[at] as Box;
    const width = box.width - PAD - (box.kind === "group" ? 4 : 0);
    context.fillStyle = inkOf(view, box);
    const text = fitText(context, labelOf(view, box), width);
    context.fillText(text, box.x + width / 2 + PAD / 2, box.y + box.height / 2 + 1);
  }
}

/** Close by: line by line in passes, because a change of font costs more than a text. */
function drawDetails(context: CanvasRenderingContext2D, view: View, boxes: readonly number[]): void {
  const { strong, plain, small } = fonts(view);
  context.font = strong;
  context.textAlign = "left";
  for (const at of boxes) drawFirstLine(context, view, view.scene.boxes[at] as Box);
  context.font = plain;
  for (const at of boxes) drawSecondLine(context, view, view.scene.boxes[at] as Box);
  context.font = small;
  context.textAlign = "center";
  for (const at of boxes) {
    const box = view.scene.boxes[at] as Box;
    if (box.kind === "layer") drawBadge(context, view, box);
  }
}

function drawFirstLine(context: CanvasRenderingContext2D, view: View, box: Box): void {
  context.fillStyle = inkOf(view, box);
  const middle = box.y + box.height * LINE_1 + 0.5;
  if (box.kind === "layer") {
    const left = box.x + PAD + (brokenOf(view, box) === "no" ? 0 : 5);
    const right = badgeOf(box).x - (view.facts.locked[box.node] ? 16 : 4);
    context.fillText(fitText(context, labelOf(view, box), right - left), left, middle);
  } else if (box.kind === "group") {
    const group = view.facts.group(box.group);
    drawChevron(context, group.ink, box.x + 15, middle, 9, false);
    context.fillStyle = group.ink;
    const right = box.x + box.width - 4 - PAD - countWidth(view, context, group) - (allLocked(group) ? 16 : 0);
    context.fillText(fitText(context, labelOf(view, box), right - box.x - 28), box.x + 25, middle);
    if (allLocked(group)) drawLock(context, group.ink, right + 2, middle - 7, 12);
  } else {
    context.textAlign = "center";
    const text = fitText(context, labelOf(view, box), box.width - 2 * PAD);
    context.fillText(text, box.x + box.width / 2, box.y + box.height / 2 + 0.5);
    context.textAlign = "left";
  }
}

function layersText(group: GroupFacts): string {
  return `${group.layers} ${group.layers === 1 ? "layer" : "layers"}`;
}

function countWidth(view: View, context: CanvasRenderingContext2D, group: GroupFacts): number {
  const { strong, plain } = fonts(view);
  context.font = plain;
  const width = widthOf(context, layersText(group));
  context.font = strong;
  return width + 8;
}

function allLocked(group: GroupFacts): boolean {
  return group.blacklisted > 0 && group.blacklisted === group.switchable;
}

function drawSecondLine(context: CanvasRenderingContext2D, view: View, box: Box): void {
  const { facts } = view;
  const middle = box.y + box.height * LINE_2;
  if (box.kind === "layer") {
    const { scale } = facts;
    const text = scale.missing || scale.kind === "categorical" ? "" : figureOf(view, box.node);
    const right = box.x + box.width - PAD;
    context.fillStyle = inkOf(view, box);
    let used = 0;
    if (text) {
      used = Math.min(widthOf(context, text), 60) + 8;
      context.textAlign = "right";
      context.globalAlpha = facts.old ? OLD : 1;
      context.fillText(fitText(context, text, 60), right, middle);
      context.textAlign = "left";
    }
    context.globalAlpha = 0.75;
    context.fillText(fitText(context, aboutLayer(view, box.node), box.width - 2 * PAD - used), box.x + PAD, middle);
    context.globalAlpha = 1;
  } else if (box.kind === "group") drawGroupLines(context, view, box);
}

/** Returns the coloured quantity of a layer in words; the time of a kernel stands at one of its layers. */
function figureOf(view: View, layer: number): string {
  const { scale } = view.facts;
  const value = scale.value(layer);
  const shared = scale.quantity === "latency" && (view.store.kernel(layer)?.layers.length ?? 0) > 1;
  return shared && value === 0 ? "fused" : scale.text(value);
}

/** Returns what tells a layer from others of its type: its name, or where the exporter gave none, the shape it gives. */
function aboutLayer(view: View, layer: number): string {
  const { model } = view.store;
  const name = shortName(model.name(layer));
  const op = model.op(layer);
  if (name.replace(/[_.]?\d*$/, "").toLowerCase() !== op.toLowerCase()) return name;
  const { edges, tensors } = model.structure;
  return tensors.shape[edges.tensor[model.leaving[layer]?.[0] ?? -1] ?? -1] || name;
}

function drawGroupLines(context: CanvasRenderingContext2D, view: View, box: Box): void {
  const group = view.facts.group(box.group);
  const right = box.x + box.width - 4 - PAD;
  context.fillStyle = group.ink;
  context.textAlign = "right";
  context.fillText(layersText(group), right, box.y + box.height * LINE_1 + 0.5);
  context.textAlign = "left";
  const figures = groupFigures(view, group);
  const line = box.y + box.height * 0.62;
  context.globalAlpha = view.facts.old ? OLD : 1;
  if (figures) context.fillText(fitText(context, figures, right - box.x - PAD), box.x + PAD, line);
  context.globalAlpha = 1;
  drawShare(context, view, group, box.x + PAD, box.y + box.height - 10, right - box.x - PAD, 5);
}

/** Returns the worst and the mean of what a group holds, in words. */
export function groupFigures(view: View, group: GroupFacts): string {
  const { scale } = view.facts;
  if (scale.missing || group.known === 0) return "";
  if (scale.kind === "categorical") return scale.text(group.worst) || "mixed";
  if (scale.quantity === "latency") return `${scale.text(group.total)} · max ${scale.text(group.worst)}`;
  const worst = scale.text(group.worst);
  if (scale.quantity === "saves") return `most ${worst}`; // savings of layers that share casts do not add up
  if (Number.isNaN(group.mean)) return worst;
  return `worst ${worst} · mean ${scale.text(group.mean)}`;
}

function drawBadge(context: CanvasRenderingContext2D, view: View, box: Box): void {
  const { theme, facts, store } = view;
  const place = badgeOf(box);
  const format = store.formatOf(box.node);
  const middle = place.y + place.height / 2;
  if (facts.locked[box.node]) drawLock(context, inkOf(view, box), place.x - 13, middle - 6, 11);
  const text = format === "none" ? "–" : fitText(context, oneLine(format, 8), place.width - 4);
  if (facts.switchable[box.node] === 0) {
    context.globalAlpha = 0.7;
    context.fillStyle = inkOf(view, box);
    context.fillText(text, place.x + place.width / 2, middle + 0.5);
    context.globalAlpha = 1;
    return;
  }
  const colour = formatColour(format, theme.dark);
  context.beginPath();
  context.roundRect(place.x, place.y, place.width, place.height, place.height / 2);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = 1;
  context.strokeStyle = theme.paper;
  context.stroke();
  context.fillStyle = inkOn(colour);
  context.fillText(text, place.x + place.width / 2, middle + 0.5);
}
