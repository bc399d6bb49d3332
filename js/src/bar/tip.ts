/** The tooltip of the bar: one for all, shown for the pointer and for the keyboard alike. */
import { h } from "../dom";

let made = 0;
const GAP = 6; // pixels between a thing and its tooltip, and between that and the edge

export interface Tip {
  element: HTMLElement;
  /** Shows the text while the element is hovered or has the focus. */
  attach(element: HTMLElement, text: () => string): void;
  dispose(): void;
}

/** Returns the tooltip of a host, which must be positioned and hold the element. */
export function createTip(host: HTMLElement): Tip {
  const id = `pe-tip-${made++}`;
  const element = h("div", { class: "pe-bar-tip", role: "tooltip", id, hidden: true });
  const stop = new AbortController();
  const hide = (): void => {
    element.hidden = true;
  };
  const show = (of: HTMLElement, text: string): void => {
    if (!text) return;
    element.textContent = text;
    element.hidden = false;
    const [box, around] = [of.getBoundingClientRect(), host.getBoundingClientRect()];
    const most = around.width - element.offsetWidth - GAP;
    element.style.left = `${Math.max(GAP, Math.min(box.left - around.left, most))}px`;
    element.style.top = `${box.bottom - around.top + GAP}px`;
  };
  const closed = (event: KeyboardEvent): void => {
    if (event.key !== "Escape" || element.hidden) return;
    hide();
    event.stopPropagation(); // Escape closes what is open, and only that
  };
  host.addEventListener("keydown", closed, { signal: stop.signal });
  host.append(element);
  return {
    element,
    attach(of, text) {
      const options = { signal: stop.signal };
      of.setAttribute("aria-describedby", id);
      of.addEventListener("pointerenter", () => show(of, text()), options);
      of.addEventListener("focus", () => show(of, text()), options);
      of.addEventListener("pointerleave", hide, options);
      of.addEventListener("blur", hide, options);
    },
    dispose() {
      stop.abort();
      element.remove();
    },
  };
}
