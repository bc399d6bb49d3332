/** Python, told apart by colour: comments, strings, numbers, keywords; all of it stays text. */
import { h } from "../dom";
import { copyButton } from "./ui";

const TOKEN =
  /(?<comment>#[^\n]*)|(?<string>(?:\b[rbf]{1,2})?(?:"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))|(?<keyword>\b(?:import|from|as|def|return|for|in|if|else|elif|not|and|or|with|lambda|True|False|None|print)\b)|(?<number>\b\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?\b)/g;

/** Returns the parts of a piece of Python; joined they are the code, character for character. */
export function highlight(code: string): (HTMLElement | string)[] {
  const parts: (HTMLElement | string)[] = [];
  let from = 0;
  for (const match of code.matchAll(TOKEN)) {
    if (match.index > from) parts.push(code.slice(from, match.index));
    const kind = Object.entries(match.groups ?? {}).find(([, found]) => found !== undefined)?.[0] ?? "";
    parts.push(h("span", { class: `pe-i-py-${kind}` }, match[0]));
    from = match.index + match[0].length;
  }
  if (from < code.length) parts.push(code.slice(from));
  return parts;
}

/** Returns code that scrolls in its own box, with a button that copies it. */
export function codeBlock(code: string, label: string): HTMLElement {
  const shown = h("code", {}, ...highlight(code));
  return h(
    "div",
    { class: "pe-i-code" },
    h("pre", { tabindex: 0 }, shown),
    copyButton(
      () => code,
      () => shown,
      label,
    ),
  );
}
