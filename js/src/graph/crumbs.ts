/** Where one is: the scopes around the middle of the view whose titles have gone out of sight; a click goes back to one. */
import { h } from "../dom";
import { inSight } from "./camera";
import { brief } from "./describe";
import type { Box } from "./layout";
import { keyOfGroup, type View } from "./view";

/** Letters of a scope's label; deep scopes must fit into a line. */
const LABEL = 28;

export interface Crumbs {
  dispose(): void;
}

export function createCrumbs(view: View): Crumbs {
  const element = h("nav", { class: "pe-graph-crumbs", "aria-label": "Scopes around what is in sight", hidden: true });
  view.host.append(element);
  let shown = "";
  view.onPaint(() => {
    const groups = around(view);
    const key = groups.join(" ");
    if (key === shown) return;
    shown = key;
    element.hidden = groups.length === 0;
    element.replaceChildren(...groups.map((group) => crumb(view, group)));
  });
  return { dispose: () => element.remove() };
}

/** Returns the groups, outermost first. */
function around(view: View): number[] {
  const seen = inSight(view.camera, view.size);
  const [x, y] = [seen.x + seen.width / 2, seen.y + seen.height / 2];
  const holds = (box: Box): boolean => box.y < seen.y && box.y + box.height > y && box.x < x && box.x + box.width > x;
  return view.rows
    .find({ x, y, width: 1, height: 1 })
    .frames.map((at) => view.scene.boxes[at] as Box)
    .filter(holds)
    .map((box) => box.group);
}

function crumb(view: View, group: number): HTMLElement {
  const { label, path } = view.store.model.structure.groups;
  const title = `To the top of ${brief(path[group] || label[group] || "")}`;
  const go = (): void => view.toTop(keyOfGroup(group));
  return h("button", { type: "button", title, onclick: go }, brief(label[group] ?? "", LABEL));
}
