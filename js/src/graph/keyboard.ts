/** Keys on the graph. Nothing passes on to the notebook that means something here. */
import {
  block,
  clear,
  concerned,
  foldAll,
  foldAt,
  redo,
  selectAll,
  toggle,
  toggleInt8,
  undo,
  unfoldAll,
} from "./actions";
import type { View } from "./view";
import { type Direction, neighbourOf } from "./ways";

export interface KeyParts {
  search(): void;
  keys(): void;
  menu(): void;
  boxMode(): void;
  clear(): void;
}

const ARROWS: Record<string, Direction> = {
  ArrowUp: "up",
  ArrowDown: "down",
  ArrowLeft: "left",
  ArrowRight: "right",
};
const ZOOM_STEP = 1.3;

/** What `?` lists. */
export const KEYS: readonly (readonly [keys: string, does: string])[] = [
  ["← ↑ → ↓", "along the edges to the next layer; with shift, add it to the selection"],
  ["space", "toggle the format of what is selected"],
  ["8", "run what is selected in int8, or in the plan's format again"],
  ["b", "keep what is selected in fp32, or let it go"],
  ["Enter", "fold or unfold a scope; of a layer, fold the scope around it"],
  ["+  −", "zoom in, zoom out"],
  ["f", "fit what is selected, else the whole graph"],
  ["Home  End", "to the first layer, to the last"],
  ["/", "search by name, op type, scope or source line"],
  ["s", "select with a box (also: shift and drag)"],
  ["ctrl/cmd a", "select all layers"],
  ["[  ]", "fold all, unfold all"],
  ["ctrl/cmd z", "undo; with shift, redo"],
  ["shift F10", "menu of what is selected"],
  ["Escape", "clear the selection and the search"],
  ["?", "this list"],
];

/** Handles a key; returns whether it meant something. */
export function handleKey(view: View, parts: KeyParts, event: KeyboardEvent): boolean {
  const command = event.ctrlKey || event.metaKey;
  if (event.altKey) return false;
  if (command) return handleCommand(view, event);
  const direction = ARROWS[event.key];
  if (direction) {
    step(view, direction, event.shiftKey);
    return true;
  }
  if (event.key === "F10" && event.shiftKey) {
    parts.menu();
    return true;
  }
  const does: Record<string, () => void> = {
    " ": () => toggle(view, concerned(view)),
    b: () => block(view, concerned(view)),
    "8": () => toggleInt8(view, concerned(view)),
    Enter: () => foldAt(view, view.boxOfKey(view.cursor)),
    "+": () => view.zoom(ZOOM_STEP),
    "=": () => view.zoom(ZOOM_STEP),
    "-": () => view.zoom(1 / ZOOM_STEP),
    f: () => view.fit(),
    Home: () => toEnd(view, "first"),
    End: () => toEnd(view, "last"),
    PageDown: () => page(view, 1),
    PageUp: () => page(view, -1),
    "/": parts.search,
    s: parts.boxMode,
    "[": () => foldAll(view),
    "]": () => unfoldAll(view),
    ContextMenu: parts.menu,
    Escape: () => {
      clear(view);
      parts.clear();
    },
    "?": parts.keys,
  };
  const action = does[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  action?.();
  return action !== undefined;
}

function handleCommand(view: View, event: KeyboardEvent): boolean {
  const key = event.key.toLowerCase();
  if (key === "z") (event.shiftKey ? redo : undo)(view);
  else if (key === "y") redo(view);
  else if (key === "a") selectAll(view);
  else return false;
  return true;
}

function step(view: View, direction: Direction, add: boolean): void {
  const from = view.boxOfKey(view.cursor);
  const to = from < 0 ? firstInSight(view) : neighbourOf(view, from, direction);
  if (to < 0) return;
  view.pick(to, add);
  view.show(view.keyOf(to));
}

function firstInSight(view: View): number {
  const { boxes } = view.scene;
  const seen = view.world(0, 0).y;
  const below = boxes.findIndex((box) => !box.open && box.kind !== "input" && box.y >= seen);
  return below >= 0 ? below : boxes.findIndex((box) => !box.open);
}

function toEnd(view: View, end: "first" | "last"): void {
  const { boxes } = view.scene;
  let best = -1;
  boxes.forEach((box, at) => {
    if (box.open || box.kind === "input" || box.kind === "output") return;
    const before = boxes[best];
    if (!before || (end === "first" ? box.y < before.y : box.y >= before.y)) best = at;
  });
  if (best < 0) return;
  view.pick(best);
  if (end === "first") view.home();
  else view.show(view.keyOf(best));
}

function page(view: View, direction: number): void {
  const { camera, size } = view;
  view.look({ ...camera, y: camera.y + (direction * 0.85 * size.height) / camera.scale });
}
