/** A picture of the graph as seen, small enough to be kept in a notebook. */

/** Letters of a data: URL; base64 takes 4 for 3 bytes, so this is about 200 kB. */
const LONGEST = 270_000;
const WIDEST = 1200;
const SMALLEST = 0.2;

/** Returns the canvas as a PNG in a data: URL, made smaller until it is short enough; "" where nothing is drawn. */
export function pictureOf(canvas: HTMLCanvasElement): string {
  if (canvas.width < 2 || canvas.height < 2) return "";
  for (let scale = Math.min(1, WIDEST / canvas.width); scale > SMALLEST; scale *= 0.75) {
    const copy = document.createElement("canvas");
    copy.width = Math.max(1, Math.round(canvas.width * scale));
    copy.height = Math.max(1, Math.round(canvas.height * scale));
    const context = copy.getContext("2d");
    if (!context) return "";
    context.imageSmoothingQuality = "high";
    context.drawImage(canvas, 0, 0, copy.width, copy.height);
    const url = copy.toDataURL("image/png");
    if (url.length <= LONGEST) return url;
  }
  return "";
}
