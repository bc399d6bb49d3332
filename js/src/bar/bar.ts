/** The bar: what the plan is made of, the state of the run, and the headline figures with how they came to be. */
import { h } from "../dom";
import type { DeviceState, PanelState, TargetState } from "../protocol";
import type { Store } from "../store";
import "../style/bar.css";
import { createBudget } from "./budget";
import { createCards } from "./cards";
import { type Choice, select, setText, shorten, signButton } from "./controls";
import { createNotices } from "./notices";
import { createOps } from "./ops";
import { createRun } from "./run";
import { createTip } from "./tip";

const MISSING_WIDTH = 44; // characters of what a backend lacks, in its option
const CUSTOM: Choice = { value: "", label: "custom", disabled: true };

/** Fills the host with the bar; it shows the store's state, and asks for changes of it. */
export function createBar(host: HTMLElement, store: Store): { dispose(): void } {
  const tip = createTip(host);
  const controls = createControls(store);
  const cards = h("div", { class: "pe-cards", role: "group", "aria-label": "Headline figures" });
  const figures = createCards(cards, store, tip);
  const notices = createNotices(store);
  const budget = createBudget(store);
  const random = h("div", { class: "pe-strip pe-strip-warn", role: "note", hidden: true });
  const locked = h("div", { class: "pe-strip", role: "note", hidden: true });
  host.prepend(
    controls.row,
    locked,
    random,
    controls.note,
    controls.run.failure,
    budget.element,
    h("div", { class: "pe-bar-row pe-bar-figures" }, cards, notices.element),
  );
  const update = (): void => {
    const { state, source } = store;
    host.classList.toggle("pe-read-only", source.readOnly);
    controls.update();
    figures.update();
    notices.update();
    budget.update();
    locked.hidden = !source.readOnly;
    setText(locked, source.readOnly ? [factsOf(state), source.readOnlyBecause].filter(Boolean).join(". ") : "");
    random.hidden = !state.random;
    setText(
      random,
      state.random
        ? "⚠ Random inputs: ranges and errors of real data can be far larger or smaller. Give real inputs."
        : "",
    );
  };
  const looked = (): void => {
    figures.update();
    controls.run.update(); // a plan that is taken is about to run
  };
  const stops = [store.on("data", update), store.on("preview", looked)];
  update();
  return {
    dispose() {
      for (const stop of stops) stop();
      budget.dispose();
      notices.dispose();
      controls.dispose();
      tip.dispose();
      host.replaceChildren();
    },
  };
}

/** Returns the controls in a row, the note on a backend that is not ready, and the reason of a failed run. */
function createControls(store: Store) {
  const request = async (kind: "target" | "gpu", name: string): Promise<void> => {
    try {
      const { call } = await store.source.request(kind, { name });
      store.say(call, "call");
    } catch (error) {
      store.refuse(error);
    }
  };
  let chosen = ""; // the backend that the user chose here: a note tells what it lacks
  let device = ""; // likewise of the device
  const target = select("Backend", "Its kernels decide which layers may run low", async (name) => {
    chosen = name;
    await request("target", name);
    update();
  });
  const format = select("Format", "The low format", (name) => store.edit({ op: "format", name }));
  const preset = select("Preset", "Which layers run low unless a rule says otherwise", (name) =>
    store.edit({ op: "preset", name }),
  );
  const gpu = select(
    "Latency on",
    "Measured where the plan runs, or predicted by a roofline of a GPU",
    async (name) => {
      device = name;
      await request("gpu", name);
      update();
    },
  );
  const keep = createKeep(store);
  const ops = createOps(store);
  const undo = signButton("↶", () => void store.edit({ op: "undo" }));
  const redo = signButton("↷", () => void store.edit({ op: "redo" }));
  const run = createRun(store);
  const words = h("span", {});
  const note = h(
    "div",
    { class: "pe-strip", role: "status", hidden: true },
    words,
    h(
      "button",
      {
        type: "button",
        class: "pe-bar-sign",
        "aria-label": "Dismiss",
        title: "Dismiss",
        onclick: () => {
          chosen = "";
          device = "";
          update();
        },
      },
      "×",
    ),
  );
  const name = h("div", { class: "pe-bar-name" }, shorten(store.model.structure.name, 80));
  name.title = store.model.structure.name.slice(0, 400);
  const history = h("div", { class: "pe-bar-history", role: "group", "aria-label": "History" });
  history.append(undo.element, redo.element);
  const row = h("div", { class: "pe-bar-row pe-bar-controls" }, name);
  for (const part of [target, format, preset, ops, keep, gpu]) row.append(part.element);
  row.append(history, run.element);

  const update = (): void => {
    const { state } = store;
    target.update(
      state.targets.map((each) => ({ value: each.name, label: targetText(each) })),
      state.target,
    );
    format.update(
      state.formats.map((each) => ({
        value: each.name,
        label: `${each.name}: ${each.off || each.about}`,
        short: each.name,
        disabled: each.off !== "",
      })),
      state.format,
    );
    const about = state.formats.find((each) => each.name === state.format)?.about;
    format.element.title = `The low format${about ? `. ${state.format}: ${about}` : ""}`;
    const presets = state.presets.map((each) => ({ value: each.name, label: each.label }));
    preset.update(state.preset ? presets : [CUSTOM, ...presets], state.preset);
    gpu.update([{ value: "", label: "nothing" }, ...state.devices.map(deviceChoice)], state.gpu);
    gpu.element.hidden = state.devices.length === 0;
    keep.update();
    ops.update();
    undo.element.disabled = state.undo === 0;
    redo.element.disabled = state.redo === 0;
    undo.name(stepsOf("Undo", state.undo));
    redo.name(stepsOf("Redo", state.redo));
    run.update();
    const lacking = state.targets.find((each) => each.name === state.target && each.name === chosen);
    const without = state.devices.find((each) => each.name === state.gpu && each.name === device && !each.ready);
    note.hidden = !lacking && !without;
    setText(words, without ? deviceNote(without) : lacking ? targetNote(lacking) : "");
    const current = state.targets.find((each) => each.name === state.target);
    target.element.title = `Its kernels decide which layers may run low. ${current ? targetNote(current) : ""}`;
  };
  return { row, note, run, update, dispose: ops.dispose };
}

/** Returns the checkbox that keeps the types of the model's inputs and outputs. */
function createKeep(store: Store): { element: HTMLElement; update(): void } {
  let waiting = 0;
  const box = h("input", { type: "checkbox" });
  const element = h(
    "label",
    { class: "pe-bar-field pe-bar-keep", title: "The model's inputs and outputs keep their types" },
    h("span", { class: "pe-bar-label" }, "I/O types"),
    h("span", { class: "pe-bar-check" }, box, "keep"),
  );
  const update = (): void => {
    const { keep_io, io_choice, format } = store.state;
    if (waiting === 0) box.checked = keep_io;
    box.disabled = !io_choice;
    element.classList.toggle("pe-bar-off", !io_choice);
    element.title = io_choice
      ? "The model's inputs and outputs keep their types"
      : `The model's inputs and outputs keep their types: they cannot be ${format}`;
  };
  box.addEventListener("change", async () => {
    waiting += 1;
    await store.edit({ op: "keep_io", value: box.checked });
    waiting -= 1;
    update();
  });
  return { element, update };
}

/** Returns a device as a choice: what it lacks in a few words where it cannot run. */
function deviceChoice({ name, label, group, ready, missing }: DeviceState): Choice {
  const lack = ready ? "" : ` (${shorten(missing.split(/[:.;]\s/)[0] || "cannot run here", MISSING_WIDTH)})`;
  return { value: name, label: `${label}${lack}`, short: name, group };
}

function deviceNote({ name, label, missing }: DeviceState): string {
  return `Latency cannot be measured on ${label || name}. ${missing} Predicted figures stand in where there are any.`;
}

function stepsOf(what: string, steps: number): string {
  if (steps === 0) return `${what}: nothing to ${what.toLowerCase()}`;
  return `${what} (${steps} ${steps === 1 ? "step" : "steps"})`;
}

/** Returns a backend with whether it can run here: what it lacks in a few words. */
function targetText(target: TargetState): string {
  if (target.ready) return target.name ? `${target.label} (ready)` : target.label;
  return `${target.label} (${shorten(target.missing.split(/[:.;]\s/)[0] || "cannot run here", MISSING_WIDTH)})`;
}

function targetNote(target: TargetState): string {
  const end = (text: string): string => (text && !/[.!?]$/.test(text) ? `${text}.` : text);
  const state = target.ready
    ? `${target.label}: ready.`
    : `${target.label} cannot run here: ${end(target.missing || "the reason is not known")} The plan can be made and exported all the same.`;
  return target.kernels ? `${state} Its kernels: ${end(target.kernels)}` : state;
}

/** Returns in words what the controls would show, for hosts where nothing can be changed. */
function factsOf(state: PanelState): string {
  const target = state.targets.find((each) => each.name === state.target);
  const preset = state.presets.find((each) => each.name === state.preset);
  const blocked = state.ops.filter((op) => op.blocked).map((op) => shorten(op.op, 24));
  return [
    `Plan in ${state.format}${preset ? `, preset ${preset.label}` : ""}`,
    target?.name && `kernels of ${target.label}`,
    state.keep_io ? "inputs and outputs keep their types" : `inputs and outputs turn ${state.format}`,
    blocked.length > 0 && `op types in fp32: ${blocked.slice(0, 6).join(", ")}${blocked.length > 6 ? ", …" : ""}`,
  ]
    .filter(Boolean)
    .join("; ");
}
