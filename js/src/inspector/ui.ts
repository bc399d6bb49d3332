/** Small parts that all tabs are made of. */
import { formatColour } from "../colours";
import { h } from "../dom";
import { RequestError } from "../source";
import type { Store } from "../store";
import { headAndTail, prose, tip } from "./names";

const SVG = "http://www.w3.org/2000/svg";
const COPIED_MS = 1600;

// Each mark has a shape of its own, so that colour is never the only carrier.
const SHAPES = {
  stop: "M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3zM5.5 5.5l5 5m0-5l-5 5",
  warn: "M8 1.8l6.7 12H1.3zM8 6v4m0 1.6v.6",
  good: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13zM5 8.2l2.2 2.2L11.2 6",
  note: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13zM8 7.2v4M8 4.6v.6",
  lock: "M3.5 7.5h9v6.5h-9zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  copy: "M5.5 5.5h8v8.5h-8zM10.5 5.5V2h-8v8.5h3",
  swap: "M2 5.5h11m-3-3l3 3l-3 3M14 10.5H3m3 3l-3-3l3-3",
  fold: "M6 3l5 5l-5 5",
} as const;
export type Shape = keyof typeof SHAPES;

/** Returns a drawn mark; `label` is what a screen reader says, empty where words stand beside it. */
export function icon(shape: Shape, label = ""): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `pe-i-icon pe-i-icon-${shape}`);
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[shape]);
  svg.append(path);
  return svg;
}

export function button(
  label: string | Node,
  press: () => void,
  more: { class?: string; title?: string; label?: string; disabled?: boolean; pressed?: boolean; key?: string } = {},
): HTMLButtonElement {
  return h(
    "button",
    {
      type: "button",
      class: `pe-i-button ${more.class ?? ""}`.trim(),
      title: more.title,
      "aria-label": more.label,
      "aria-pressed": more.pressed === undefined ? null : String(more.pressed),
      disabled: more.disabled,
      "data-key": more.key,
      onclick: press,
    },
    label,
  );
}

/** Returns a button that copies a text; where the clipboard is closed to the page it selects what stands beside it. */
export function copyButton(text: () => string, shown: () => Node | null, label: string): HTMLButtonElement {
  const word = h("span", { "aria-live": "polite" });
  const face = h("span", { class: "pe-i-copy-face" }, icon("copy"), word);
  const tell = (message: string): void => {
    word.textContent = message;
    setTimeout(() => {
      word.textContent = "";
    }, COPIED_MS);
  };
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text());
      tell("Copied");
    } catch {
      const node = shown();
      if (!node) return tell("Not allowed here");
      if (node instanceof HTMLTextAreaElement || node instanceof HTMLInputElement) node.select();
      else getSelection()?.selectAllChildren(node);
      tell("Selected: press Ctrl+C");
    }
  };
  return button(face, () => void copy(), { class: "pe-i-quiet pe-i-copy", title: label, label });
}

/** Returns the badge of a layer's format; a button where the layer can be toggled. */
export function badge(store: Store, layer: number): HTMLElement {
  const format = store.formatOf(layer);
  const fill = format === "none" ? "none" : store.runsLow(layer) ? "low" : "wide";
  const locked = store.isBlacklisted(layer);
  const dot = h("span", { class: "pe-i-dot" });
  dot.style.background = formatColour(format, false);
  const face = [
    format !== "none" && dot,
    locked && icon("lock", "blacklisted"),
    h("span", {}, format === "none" ? "no floats" : format),
  ] as const;
  if (!store.isSwitchable(layer) || store.source.readOnly) {
    return h("span", { class: `pe-i-badge pe-i-${fill}`, title: store.reasonOf(layer) }, ...face);
  }
  return h(
    "button",
    {
      type: "button",
      class: `pe-i-badge pe-i-${fill}`,
      title: `${locked ? "Blacklisted. " : ""}Toggle to ${fill === "low" ? "fp32" : store.state.format} (space)`,
      "aria-label": `Format ${format}; toggle`,
      "data-key": "badge",
      onclick: () => void store.edit({ op: "toggle", layers: [layer] }),
    },
    ...face,
    icon("swap"),
  );
}

/** Returns a link to a layer: it selects it and brings it into sight. */
export function layerLink(store: Store, layer: number, text = store.model.name(layer)): HTMLButtonElement {
  const [head, tail] = headAndTail(text);
  return h(
    "button",
    {
      type: "button",
      class: "pe-i-link",
      title: tip(text),
      "data-key": `layer ${layer}`,
      onclick: () => store.reveal(layer),
    },
    head && h("span", { class: "pe-i-head" }, head),
    h("span", { class: "pe-i-tail" }, tail),
  );
}

/** Returns a section that can be folded; `open` remembers by title what the user folded. */
export function section(title: string, open: Map<string, boolean>, ...children: (Node | string)[]): HTMLDetailsElement {
  const details = h(
    "details",
    { class: "pe-i-section", open: open.get(title) ?? true },
    h("summary", { "data-key": `section ${title}` }, icon("fold"), h("span", {}, title)),
    h("div", { class: "pe-i-inside" }, ...children),
  );
  details.addEventListener("toggle", () => open.set(title, details.open));
  return details;
}

/** Returns pairs of a label and a value. */
export function pairs(...rows: ([string, string | Node | null] | null | false)[]): HTMLElement {
  return h(
    "dl",
    { class: "pe-i-pairs" },
    ...rows.flatMap((row) => (row ? [h("dt", {}, row[0]), h("dd", {}, row[1] ?? "")] : [])),
  );
}

/** Returns how figures came to be, in small print. */
export function provenance(text: string): HTMLElement | null {
  return text ? h("p", { class: "pe-i-provenance" }, text) : null;
}

/** Returns a refusal as it stands in place of what was asked for; a calm one where nothing is wrong, as in a report. */
export function refusal(error: unknown, calm = false): HTMLElement {
  const parts = error instanceof RequestError ? [error.what, error.why, error.fix] : [String(error), "", ""];
  const [what = "", why = "", fix = ""] = parts.map(prose);
  return h(
    "div",
    { class: calm ? "pe-i-refusal pe-i-calm" : "pe-i-refusal", role: calm ? "note" : "alert" },
    icon(calm ? "note" : "stop", calm ? "Note" : "Refused"),
    h("div", {}, h("p", { class: "pe-i-what" }, what), why && h("p", {}, why), fix && h("p", {}, fix)),
  );
}

/** Returns grey bars in place of what is still on its way. */
export function skeleton(lines: number): HTMLElement {
  return h(
    "div",
    { class: "pe-i-skeleton", role: "status", "aria-label": "Loading" },
    ...Array.from({ length: lines }, () => h("span")),
  );
}

const filled = new WeakMap<Element, string>();

/** Fills an element anew only when what it shows has changed; the keyboard stays where it was. */
export function refill(element: HTMLElement, key: unknown, fill: () => (Node | string | null | false)[]): void {
  const wanted = JSON.stringify(key);
  if (filled.get(element) === wanted) return;
  filled.set(element, wanted);
  const at = document.activeElement;
  const held = at instanceof HTMLElement && element.contains(at) ? at.dataset.key : undefined;
  element.replaceChildren(...fill().filter((child): child is Node | string => child !== null && child !== false));
  if (held === undefined) return;
  const again = [...element.querySelectorAll<HTMLElement>("[data-key]")].find((other) => other.dataset.key === held);
  again?.focus({ preventScroll: true });
}
