/** The sign that what the graph shows is a plan that is looked at, and not set. */
import { h } from "../dom";
import { errorWithDb } from "../inspector/numbers";
import type { View } from "./view";

export function createPreviewSign(view: View): { dispose(): void } {
  const { store } = view;
  const words = h("span", {});
  const element = h("div", { class: "pe-graph-preview", hidden: true }, h("b", {}, "Preview"), words);
  view.host.append(element);
  const update = (): void => {
    const { preview } = store;
    element.hidden = preview === null;
    view.host.classList.toggle("pe-previewing", preview !== null);
    if (!preview) return;
    const budget = `error ≤ ${errorWithDb(store.taking || preview.budget)}`;
    words.textContent = preview.taken
      ? `${budget}: being run`
      : `${budget}. Let go or press Enter to set it, Esc to go back.`;
  };
  const stop = store.on("preview", update);
  update();
  return {
    dispose() {
      stop();
      element.remove();
    },
  };
}
