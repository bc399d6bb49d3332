/** A row of tabs as screen readers know it: arrows move, one panel is up. */
import { h } from "../dom";

export interface Tabs<Name extends string> {
  readonly list: HTMLElement;
  readonly panels: ReadonlyMap<Name, HTMLElement>;
  /** Brings a tab up. */
  show(name: Name): void;
  /** Sets the small figure beside a tab's name; "" for none. */
  mark(name: Name, text: string): void;
}

let made = 0;

export function createTabs<Name extends string>(
  label: string,
  names: readonly (readonly [Name, string])[],
  chosen: (name: Name) => void,
): Tabs<Name> {
  const id = `pe-i-tabs-${made++}`;
  const marks = new Map<Name, HTMLElement>();
  const tabs = new Map<Name, HTMLButtonElement>();
  const panels = new Map<Name, HTMLElement>();
  for (const [name, text] of names) {
    const mark = h("span", { class: "pe-i-mark" });
    marks.set(name, mark);
    tabs.set(
      name,
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `${id}-${name}`,
          "aria-controls": `${id}-${name}-panel`,
          onclick: () => chosen(name),
        },
        text,
        mark,
      ),
    );
    panels.set(
      name,
      h("div", {
        role: "tabpanel",
        class: "pe-i-panel",
        id: `${id}-${name}-panel`,
        "aria-labelledby": `${id}-${name}`,
        hidden: true,
      }),
    );
  }
  const order = names.map(([name]) => name);
  const list = h("div", { class: "pe-i-tabs", role: "tablist", "aria-label": label }, ...tabs.values());
  list.addEventListener("keydown", (event) => {
    const at = order.findIndex((name) => tabs.get(name) === event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + order.length, Home: 0, End: order.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    const name = order[to % order.length] as Name;
    chosen(name);
    tabs.get(name)?.focus();
    event.preventDefault();
    event.stopPropagation();
  });
  return {
    list,
    panels,
    show(name) {
      for (const [other, tab] of tabs) {
        const up = other === name;
        tab.setAttribute("aria-selected", String(up));
        tab.tabIndex = up ? 0 : -1;
        const panel = panels.get(other);
        if (panel) panel.hidden = !up;
      }
      bring(list, tabs.get(name));
    },
    mark(name, text) {
      const mark = marks.get(name);
      if (mark) mark.textContent = text;
    },
  };
}

/** Moves the row of tabs until one is in sight. scrollIntoView() would move the page that the panel stands on too. */
function bring(list: HTMLElement, tab: HTMLElement | undefined): void {
  if (!tab) return;
  const [row, one] = [list.getBoundingClientRect(), tab.getBoundingClientRect()];
  if (one.left < row.left) list.scrollLeft -= row.left - one.left;
  else if (one.right > row.right) list.scrollLeft += one.right - row.right;
}
