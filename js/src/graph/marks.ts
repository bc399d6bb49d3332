/** Small signs on a canvas; each has a shape of its own, so that colour is never the only carrier. */
import { brokenColour } from "../colours";
import type { Theme } from "../theme";
import type { Broken } from "./facts";

/** Draws an octagon with "!": filled if the plan gives inf/NaN, hollow if the layer alone would. */
export function drawBroken(
  context: CanvasRenderingContext2D,
  theme: Theme,
  broken: Broken,
  x: number,
  y: number,
  radius: number,
  faded: boolean,
): void {
  if (broken === "no") return;
  const colour = faded ? theme.muted : brokenColour(theme.dark);
  context.beginPath();
  for (let corner = 0; corner < 8; corner++) {
    const angle = ((corner + 0.5) * Math.PI) / 4;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
  context.fillStyle = broken === "now" ? colour : theme.paper;
  context.fill();
  context.lineWidth = radius * 0.2;
  context.strokeStyle = broken === "now" ? theme.paper : colour;
  context.stroke();
  // "!" as two strokes: sharper than a letter at this size.
  context.fillStyle = broken === "now" ? "#ffffff" : colour;
  context.fillRect(x - radius * 0.14, y - radius * 0.55, radius * 0.28, radius * 0.66);
  context.fillRect(x - radius * 0.14, y + radius * 0.28, radius * 0.28, radius * 0.28);
}

/** Draws a disc with "≠": the layer did not run in the format that was decided. */
export function drawOverruled(
  context: CanvasRenderingContext2D,
  theme: Theme,
  x: number,
  y: number,
  radius: number,
): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = theme.paper;
  context.fill();
  context.lineWidth = radius * 0.2;
  context.strokeStyle = theme.ink;
  context.stroke();
  context.fillStyle = theme.ink;
  context.fillRect(x - radius * 0.5, y - radius * 0.32, radius, radius * 0.2);
  context.fillRect(x - radius * 0.5, y + radius * 0.14, radius, radius * 0.2);
  context.beginPath();
  context.moveTo(x - radius * 0.3, y + radius * 0.58);
  context.lineTo(x + radius * 0.3, y - radius * 0.58);
  context.stroke();
}

/** Draws a padlock, `size` high, its top left corner at x, y. */
export function drawLock(context: CanvasRenderingContext2D, colour: string, x: number, y: number, size: number): void {
  const width = size * 0.8;
  context.fillStyle = colour;
  context.fillRect(x, y + size * 0.45, width, size * 0.55);
  context.beginPath();
  context.arc(x + width / 2, y + size * 0.42, width * 0.3, Math.PI, 0);
  context.lineTo(x + width * 0.8, y + size * 0.5);
  context.moveTo(x + width * 0.2, y + size * 0.5);
  context.lineTo(x + width * 0.2, y + size * 0.42);
  context.lineWidth = size * 0.15;
  context.strokeStyle = colour;
  context.stroke();
}

/** Draws a triangle that points down (unfolded) or right (folded). */
export function drawChevron(
  context: CanvasRenderingContext2D,
  colour: string,
  x: number,
  y: number,
  size: number,
  open: boolean,
): void {
  const half = size / 2;
  context.beginPath();
  if (open) {
    context.moveTo(x - half, y - half * 0.6);
    context.lineTo(x + half, y - half * 0.6);
    context.lineTo(x, y + half * 0.7);
  } else {
    context.moveTo(x - half * 0.6, y - half);
    context.lineTo(x - half * 0.6, y + half);
    context.lineTo(x + half * 0.7, y);
  }
  context.closePath();
  context.fillStyle = colour;
  context.fill();
}

/** Draws a cast: a diamond with the bits of the format that values are cast to. */
export function drawCast(
  context: CanvasRenderingContext2D,
  theme: Theme,
  text: string,
  colour: string,
  x: number,
  y: number,
  radius: number,
): void {
  context.beginPath();
  context.moveTo(x, y - radius);
  context.lineTo(x + radius, y);
  context.lineTo(x, y + radius);
  context.lineTo(x - radius, y);
  context.closePath();
  context.fillStyle = theme.paper;
  context.fill();
  context.lineWidth = 1.6;
  context.strokeStyle = colour;
  context.stroke();
  context.fillStyle = theme.ink;
  context.fillText(text, x, y + 0.5);
}
