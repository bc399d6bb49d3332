/** Formats to choose from, for one layer or several: a button each, the present one pressed. */
import { h } from "../dom";
import type { Store } from "../store";
import { button } from "./ui";

/** Returns the choice; null where nothing can be chosen, or a toggle says it all. */
export function formatChoice(store: Store, layers: readonly number[]): HTMLElement | null {
  const { uses } = store.state;
  if (store.source.readOnly || uses.length < 2) return null;
  const all = ["fp32", ...uses];
  const able = (format: string): number[] => layers.filter((layer) => store.mayBe(layer, format));
  if (able("fp32").length === 0) return null;
  return h(
    "div",
    { class: "pe-i-choice", role: "group", "aria-label": "Format" },
    ...all.map((format) => {
      const can = able(format);
      const pressed = can.length > 0 && can.every((layer) => store.formatOf(layer) === format);
      const some = layers.length > 1 && can.length < layers.length ? ` (${can.length} of ${layers.length} layers)` : "";
      return button(format, () => void store.edit({ op: "use", format, layers: can }), {
        key: `use ${format}`,
        pressed,
        disabled: can.length === 0,
        title: can.length === 0 ? `Cannot run in ${format}` : `Run in ${format}${some}`,
      });
    }),
  );
}
