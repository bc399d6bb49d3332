/** What the user can do with boxes; keyboard, menu and pointer share it. */
import type { Box } from "./layout";
import type { View } from "./view";

/** Returns the layers that an action is about: the selection, else what the keyboard stands on. */
export function concerned(view: View): number[] {
  const { selection } = view.store;
  return selection.size > 0 ? [...selection] : view.layersOf(view.boxOfKey(view.cursor));
}

function switchable(view: View, layers: readonly number[]): number[] {
  return layers.filter((layer) => view.store.isSwitchable(layer));
}

/** Says why nothing happens, in words of the conversion. */
function refuse(view: View, layers: readonly number[]): void {
  const [first] = layers;
  if (first === undefined) {
    view.store.say("Select a layer first: click it, or move to it with the arrow keys.");
    return;
  }
  const reason = view.store.reasonOf(first);
  const what = layers.length === 1 ? "This layer" : "None of these layers";
  view.store.say(`${what} can${layers.length === 1 ? "not" : ""} be switched${reason ? `: ${reason}` : ""}.`);
}

export function toggle(view: View, layers: readonly number[]): void {
  const can = switchable(view, layers);
  if (can.length === 0) refuse(view, layers);
  else void view.store.edit({ op: "toggle", layers: can });
}

/** Runs layers in a format that the plan can name; says why where none of them can. */
export function use(view: View, layers: readonly number[], format: string): void {
  const can = layers.filter((layer) => view.store.mayBe(layer, format));
  if (can.length === 0) refuse(view, layers);
  else void view.store.edit({ op: "use", format, layers: can });
}

/** Runs layers in int8; where all of them do, in the plan's own low format again. */
export function toggleInt8(view: View, layers: readonly number[]): void {
  const { store } = view;
  const { format, uses } = store.state;
  if (!uses.includes("int8")) {
    store.say(`A plan of ${format} has no int8 layers: choose fp16, bf16 or int8 in the bar.`);
    return;
  }
  const can = layers.filter((layer) => store.mayBe(layer, "int8"));
  const all = can.length > 0 && can.every((layer) => store.formatOf(layer) === "int8");
  const back = format === "int8" ? "fp32" : format;
  if (layers.length > 0 && can.length === 0) store.say("None of these layers can run in int8.");
  else use(view, can, all ? back : "int8");
}

/** Keeps layers in fp32; lets them go if all of them are kept there already. */
export function block(view: View, layers: readonly number[]): void {
  const can = switchable(view, layers);
  if (can.length === 0) {
    refuse(view, layers);
    return;
  }
  const blocked = can.every((layer) => view.store.isBlacklisted(layer));
  void view.store.edit({ op: blocked ? "allow" : "block", layers: can });
}

export function undo(view: View): void {
  if (view.store.state.undo > 0 || view.store.source.readOnly) void view.store.edit({ op: "undo" });
  else view.store.say("Nothing to undo.");
}

export function redo(view: View): void {
  if (view.store.state.redo > 0 || view.store.source.readOnly) void view.store.edit({ op: "redo" });
  else view.store.say("Nothing to redo.");
}

/** Folds or unfolds a group; of a layer, folds the scope around it. */
export function foldAt(view: View, at: number, open?: boolean): void {
  const box = view.scene.boxes[at];
  if (!box) return;
  if (box.kind === "group") view.fold(box.group, open ?? !box.open);
  else if (box.kind === "layer" && open !== true) view.fold(view.store.model.groupOf(box.node), false);
}

export function foldAll(view: View): void {
  view.store.setOpen([]);
}

export function unfoldAll(view: View): void {
  view.store.setOpen(view.store.model.structure.groups.label.keys());
}

/** Selects everything that can be seen or is folded away. */
export function selectAll(view: View): void {
  view.select(
    Array.from({ length: view.store.model.layers }, (_, layer) => layer),
    -1,
  );
}

export function clear(view: View): void {
  view.select([], -1);
}

/** Returns the scope around a box: the group itself, or the one that holds the layer; -1 where it has no path. */
export function scopeOf(view: View, box: Box): number {
  const group = box.kind === "group" ? box.group : view.store.model.groupOf(box.node);
  return view.store.model.structure.groups.path[group] ? group : -1;
}
