/** Names come from the model and may hold anything: what is invisible is shown, what is long is shortened. */

const WIDTH = 400; // characters of a name in a tooltip: browsers lay out longer ones slowly
const TAIL = 22; // characters at a name's end that tell the layers of one block apart
const DELETE = 0x7f;

/** Returns a name with control and direction characters replaced by visible ones; emoji stay whole. */
export function visible(name: string): string {
  return name.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code === 0x200d) return character; // the zero-width joiner holds emoji together, and hides nothing
    if (code === DELETE) return "␡";
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : "\ufffd"; // Unicode's control pictures begin at U+2400
  });
}

/** Returns prose with its line breaks, and nothing else that is invisible. */
export function prose(text: string): string {
  return text.split("\n").map(visible).join("\n");
}

/** Returns a name on one line, its middle left out where it is longer than `width`. */
export function shorten(name: string, width = 72): string {
  const line = visible(name.length > width * 8 ? name.slice(0, width * 4) + name.slice(-width * 4) : name);
  if (line.length <= width) return line;
  const head = Math.floor(width / 2);
  return `${line.slice(0, head)}…${line.slice(head + 1 - width)}`;
}

/** Returns a name for a tooltip. */
export function tip(name: string): string {
  return shorten(name, WIDTH);
}

/** Returns a name in two parts: the first may be cut by the layout, the second is always seen. */
export function headAndTail(name: string, tail = TAIL): [string, string] {
  const line = shorten(name, 160);
  if (line.length <= tail) return ["", line];
  const part = line.indexOf("/", line.length - tail); // the tail starts at a part of the path where there is one
  const cut = part >= 0 ? part : line.length - tail;
  return [line.slice(0, cut), line.slice(cut)];
}

/** Returns text for plotly, which reads a few HTML tags, entities and $TeX$ in whatever it shows. */
export function plotlyText(text: string): string {
  return text.replace(/[&<>"'$]/g, (mark) => `&#${mark.charCodeAt(0)};`);
}

/** Returns a model's name as the beginning of a file name: no folder, no ending, nothing that a shell would read. */
export function stem(model: string): string {
  const last = model.split(/[/\\]/).at(-1) ?? "";
  const plain = last
    .replace(/\.onnx$/i, "")
    .replace(/[^\p{L}\p{N}._-]+/gu, "_")
    .replace(/^[._-]+|_+$/g, "");
  return plain.slice(0, 80) || "model";
}
