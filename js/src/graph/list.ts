/** The graph for the keyboard and for screen readers: a list of boxes, of which only those around the cursor exist. */
import { h } from "../dom";
import { boxSentence } from "./describe";
import type { View } from "./view";

/** Options on each side of the cursor. */
const AROUND = 15;
let lists = 0; // ids of options must be unique in the page

export interface BoxList {
  readonly element: HTMLElement;
  focus(): void;
  announce(text: string): void;
  dispose(): void;
}

export function createList(view: View): BoxList {
  const id = `pe-graph-list-${lists++}`;
  const element = h("div", {
    class: "pe-graph-list",
    role: "listbox",
    tabindex: 0,
    "aria-label": `Layers of ${view.store.model.structure.name}. Arrow keys follow the edges, question mark lists the keys.`,
    "aria-multiselectable": "true",
  });
  const live = h("div", { class: "pe-graph-live", role: "status", "aria-live": "polite" });
  view.host.append(element, live);
  let timer: ReturnType<typeof setTimeout> | undefined;

  const draw = (): void => {
    timer = undefined;
    const { boxes } = view.scene;
    const cursor = view.boxOfKey(view.cursor);
    const first = Math.max(0, cursor - AROUND);
    const selected = view.selected();
    const options = boxes.slice(first, first + 2 * AROUND + 1).map((box, place) => {
      const at = first + place;
      return h(
        "div",
        {
          role: "option",
          id: `${id}-${at}`,
          "aria-selected": String(selected.has(at)),
          "aria-setsize": boxes.length,
          "aria-posinset": at + 1,
          onclick: () => {
            view.pick(at);
            view.show(view.keyOf(at));
          },
        },
        boxSentence(view.store, view.facts, box),
      );
    });
    element.replaceChildren(...options);
    if (cursor >= 0) element.setAttribute("aria-activedescendant", `${id}-${cursor}`);
    else element.removeAttribute("aria-activedescendant");
  };
  // After the frame: the list is for other senses than the one that waits for it.
  const later = (): void => {
    timer ??= setTimeout(draw, 30);
  };
  view.onChange(later);
  draw();
  return {
    element,
    focus: () => element.focus({ preventScroll: true }),
    announce(text) {
      live.textContent = text;
    },
    dispose() {
      clearTimeout(timer);
      element.remove();
      live.remove();
    },
  };
}
