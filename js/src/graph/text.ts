/** Text on a canvas that never leaves its place: measured, cut with an ellipsis, remembered. */

/** Longer names are not measured whole: at 2 pixels a letter this is wider than any box. */
const LONGEST = 160;
const REMEMBERED = 20_000;

const cuts = new Map<string, string>();
const widths = new Map<string, number>();

/** Returns text on one line: control characters (newlines, bidirectional overrides) would move what follows. */
export function oneLine(text: string, longest = LONGEST): string {
  const cut = text.length > longest ? text.slice(0, longest) : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
  return cut.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g, " ");
}

/** Returns the last part of a path-like name, which tells layers of one scope apart. */
export function shortName(name: string): string {
  const line = oneLine(name.length > LONGEST ? name.slice(-LONGEST) : name);
  const parts = line.split("/").filter(Boolean);
  return parts[parts.length - 1] ?? line;
}

/** Returns the width of a text in the context's present font. */
export function widthOf(context: CanvasRenderingContext2D, text: string): number {
  const key = `${context.font}|${text}`;
  let width = widths.get(key);
  if (width === undefined) {
    width = context.measureText(text).width;
    if (widths.size > REMEMBERED) widths.clear();
    widths.set(key, width);
  }
  return width;
}

/** Returns the text, or as much of it as the width holds, with an ellipsis; "" where not even that fits. */
export function fitText(context: CanvasRenderingContext2D, text: string, width: number): string {
  const key = `${context.font}|${Math.round(width)}|${text}`;
  const known = cuts.get(key);
  if (known !== undefined) return known;
  const made = cut(context, oneLine(text), Math.round(width));
  if (cuts.size > REMEMBERED) cuts.clear();
  cuts.set(key, made);
  return made;
}

function cut(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  // By code points: half of an emoji is a box.
  const letters = [...text];
  let [fits, fails] = [0, letters.length];
  while (fails - fits > 1) {
    const middle = (fits + fails) >> 1;
    if (context.measureText(`${letters.slice(0, middle).join("")}…`).width <= width) fits = middle;
    else fails = middle;
  }
  return fits === 0 ? "" : `${letters.slice(0, fits).join("").trimEnd()}…`;
}
