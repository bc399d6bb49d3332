/** Search by name, op type, scope or source line; what is found glows, Enter jumps to it. */
import { h } from "../dom";
import type { Model } from "../model";
import { brief } from "./describe";
import { icon } from "./icons";
import { shortName } from "./text";
import type { View } from "./view";

/** Rows of the list; more than this nobody reads, a longer word is quicker. */
const LISTED = 80;
/** Letters of a layer's name and scope that are searched. */
const SEARCHED = 2000;
let lists = 0; // ids of options must be unique in the page

export interface Search {
  readonly element: HTMLElement;
  open(): void;
  clear(): void;
  dispose(): void;
}

/** Returns what of each layer is searched, in small letters. */
export function haystack(model: Model): string[] {
  const { layers, groups, sources } = model.structure;
  return layers.id.map((id, layer) => {
    const scope = groups.path[layers.group[layer] ?? 0] ?? "";
    const source = sources[layers.source[layer] ?? 0] ?? "";
    const name = id.slice(0, SEARCHED);
    return `${name}\n${model.op(layer)}\n${scope.slice(0, SEARCHED)}\n${source}`.toLowerCase();
  });
}

/** Returns the layers that hold every word of the query, in execution order; none for an empty one. */
export function find(hay: readonly string[], query: string): number[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  return hay.flatMap((text, layer) => (words.every((word) => text.includes(word)) ? [layer] : []));
}

export function createSearch(view: View, back: () => void): Search {
  const id = `pe-graph-found-${lists++}`;
  const input = h("input", {
    type: "search",
    placeholder: "Search layers",
    role: "combobox",
    "aria-label": "Search layers by name, op type, scope or source line",
    "aria-expanded": "false",
    "aria-controls": id,
    "aria-autocomplete": "list",
    autocomplete: "off",
    spellcheck: "false",
  });
  const count = h("span", { class: "pe-graph-count", "aria-live": "polite" });
  const hint = h("kbd", { "aria-hidden": "true" }, "/");
  const list = h("ul", { id, role: "listbox", class: "pe-graph-found", hidden: true, "aria-label": "Layers found" });
  const element = h("div", { class: "pe-graph-search" }, icon("search"), input, count, hint, list);
  let hay: string[] | undefined;
  let found: number[] = [];
  let at = 0;

  const mark = (): void => {
    [...list.children].forEach((row, place) => {
      row.setAttribute("aria-selected", String(place === at));
      if (place === at) row.scrollIntoView?.({ block: "nearest" });
    });
    if (found.length > 0) input.setAttribute("aria-activedescendant", `${id}-${at}`);
    else input.removeAttribute("aria-activedescendant");
    const some = found.length > 0 ? `${at + 1} of ${found.length}` : "none";
    count.textContent = input.value.trim() === "" ? "" : some;
    hint.hidden = count.textContent !== "";
  };
  const update = (): void => {
    hay ??= haystack(view.store.model);
    found = find(hay, input.value);
    at = 0;
    view.matches = new Set(found);
    list.replaceChildren(
      ...found.slice(0, LISTED).map((layer, place) => row(view, layer, `${id}-${place}`, () => jump(place))),
    );
    if (found.length > LISTED) {
      list.append(h("li", { class: "pe-graph-more", "aria-hidden": "true" }, `and ${found.length - LISTED} more`));
    }
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    mark();
    view.invalidate();
  };
  const clear = (): void => {
    if (input.value === "") return;
    input.value = "";
    update();
  };
  const close = (): void => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
  };
  const jump = (place: number): void => {
    const layer = found[place];
    if (layer === undefined) return;
    at = place;
    mark();
    close();
    view.store.reveal(layer);
    back();
  };
  const key = (event: KeyboardEvent): void => {
    const shown = Math.min(found.length, LISTED);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (shown === 0) return;
      if (list.hidden) list.hidden = false;
      else at = (at + (event.key === "ArrowDown" ? 1 : shown - 1)) % shown;
      mark();
    } else if (event.key === "Enter") {
      event.preventDefault();
      jump(at);
    } else if (event.key === "Escape") {
      event.preventDefault();
      clear();
      back();
    }
    event.stopPropagation();
  };
  input.addEventListener("input", update);
  input.addEventListener("keydown", key);
  input.addEventListener("focus", () => {
    if (found.length > 0) list.hidden = false;
  });
  input.addEventListener("blur", close);
  // The list must not take the focus from the field before the click has come.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  return {
    element,
    open() {
      input.focus();
      input.select();
    },
    clear,
    dispose: () => element.remove(),
  };
}

function row(view: View, layer: number, id: string, jump: () => void): HTMLElement {
  const { model } = view.store;
  const scope = model.structure.groups.path[model.groupOf(layer)] ?? "";
  return h(
    "li",
    { role: "option", id, "aria-selected": "false", onclick: jump },
    h("b", {}, brief(model.op(layer), 40)),
    h("span", {}, brief(shortName(model.name(layer)), 80)),
    h("small", {}, brief(scope, 80)),
  );
}
