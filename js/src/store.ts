/** What all parts of the view share: the data, and what the user has selected, opened and coloured. */
import { float } from "./inspector/numbers";
import { Model } from "./model";
import type { BudgetPreview, Edit, Figures, Kernel, PanelState, Requests } from "./protocol";
import { RequestError, type Source } from "./source";

export const QUANTITIES = [
  "local",
  "accumulated",
  "sensitivity",
  "saves",
  "costs",
  "latency",
  "format",
  "reason",
] as const;
export type Quantity = (typeof QUANTITIES)[number];
export const TABS = ["layer", "table", "tradeoff", "findings", "export"] as const;
export type Tab = (typeof TABS)[number];

/** What changed: `data` is state or figures (or what is expected of them), the others are the user's view of it. */
export type Topic = "data" | "preview" | "selection" | "colour" | "groups" | "hover" | "tab" | "notice";

const PATIENCE_MS = 3000; // without an answer for this long, the kernel is at something else
const BUSY = "Waiting for the kernel. It may be running another cell; if it is gone, run this panel's cell again.";

export interface Notice {
  text: string;
  tone: "note" | "error" | "call";
}

/** A plan that is looked at and not set: what the front gives for a budget. */
export interface Preview extends BudgetPreview {
  /** Names that `format` indexes, as they were when it was asked for. */
  names: readonly string[];
  budget: number; // relative L2 error
  /** It has been chosen: Python runs it, and sets it when it holds. */
  taken: boolean;
}

export class Store {
  readonly model: Model;
  private listeners = new Map<Topic, Set<() => void>>();
  private readonly stop: () => void;
  /** Formats that an edit is expected to give, until Python has answered. */
  private expected = new Map<number, string>();
  private kernelOf: { figures: Figures; byLayer: Map<number, Kernel> } | null = null;
  private waiting = 0;
  private told: { figures: Figures; revision: number } | null = null;

  /** Grows whenever a layer may look other than before; progress of a run does not count. */
  version = 0;

  selection: ReadonlySet<number> = new Set(); // layers
  /** The layer that the keyboard stands on and that the inspector shows; -1 for none. */
  focus = -1;
  hovered = -1; // layer
  colour: Quantity = "accumulated";
  open: ReadonlySet<number> = new Set([0]); // groups that are unfolded
  tab: Tab = "layer";
  notice: Notice | null = null;
  /** Shown in place of the plan while the user looks for a budget; null most of the time. */
  preview: Preview | null = null;
  /** The budget that Python finds, runs and sets the plan of now; 0 where a point of the front was taken; else null. */
  taking: number | null = null;

  constructor(readonly source: Source) {
    this.model = new Model(source.structure());
    this.stop = source.onChange(() => this.tell());
  }

  dispose(): void {
    this.stop();
    this.listeners.clear();
  }

  get state(): PanelState {
    return this.source.state();
  }

  get figures(): Figures {
    return this.source.figures();
  }

  /** Calls back after each change of a topic; returns how to stop that. */
  on(topics: Topic | readonly Topic[], changed: () => void): () => void {
    const all = typeof topics === "string" ? [topics] : topics;
    for (const topic of all) {
      if (!this.listeners.has(topic)) this.listeners.set(topic, new Set());
      this.listeners.get(topic)?.add(changed);
    }
    return () => {
      for (const topic of all) this.listeners.get(topic)?.delete(changed);
    };
  }

  emit(topic: Topic): void {
    for (const changed of [...(this.listeners.get(topic) ?? [])]) changed();
  }

  private tell(expectation = false): void {
    const { figures, state } = this;
    if (expectation || this.told?.figures !== figures || this.told.revision !== state.revision) this.version += 1;
    this.told = { figures, revision: state.revision };
    this.emit("data");
  }

  // -- what is shown of a layer ---------------------------------------------------------------------------------------

  /** Returns the format that a layer has, or is about to have. */
  formatOf(layer: number): string {
    if (this.preview) return this.preview.names[this.preview.format[layer] ?? 0] ?? "none";
    return this.expected.get(layer) ?? this.figures.formats[this.figures.format[layer] ?? 0] ?? "none";
  }

  runsLow(layer: number): boolean {
    const format = this.formatOf(layer);
    return format !== "fp32" && format !== "none";
  }

  /** Returns the low format that figures of a layer are about: the one it runs in, or else that of the plan. */
  lowFormatOf(layer: number): string {
    return this.runsLow(layer) ? this.formatOf(layer) : this.state.format;
  }

  /** Whether the plan runs layers in int8 beside its own low format. */
  get mixed(): boolean {
    return this.state.format !== "int8" && this.state.calibration.wanted;
  }

  /** Whether a plan can run the layer in a format: fp32, or one of `state.uses`. */
  mayBe(layer: number, format: string): boolean {
    const bits = this.figures.switchable[layer] ?? 0;
    if (format === "fp32") return bits !== 0;
    return ((format === this.state.format ? 1 : format === "int8" ? 2 : 0) & bits) !== 0;
  }

  isBlacklisted(layer: number): boolean {
    if (this.preview && this.runsLow(layer)) return false; // single layers are for the search to decide
    const expected = this.expected.get(layer);
    return expected ? expected === "fp32" : this.figures.blacklisted[layer] === 1;
  }

  isSwitchable(layer: number): boolean {
    return this.mayBe(layer, this.state.format) || this.formatOf(layer) === "int8";
  }

  /** Returns the kernel that computed a layer when the plan was measured, its main one; null where that is not known. */
  kernel(layer: number): Kernel | null {
    const { figures } = this;
    if (this.kernelOf?.figures !== figures) {
      const byLayer = new Map<number, Kernel>();
      for (const kernel of figures.kernels) {
        if (kernel.kind !== "layer") continue;
        for (const one of kernel.layers) {
          const known = byLayer.get(one);
          if (!known || float(kernel.us) > float(known.us)) byLayer.set(one, kernel);
        }
      }
      this.kernelOf = { figures, byLayer };
    }
    return this.kernelOf.byLayer.get(layer) ?? null;
  }

  /** Returns the format that a layer really ran in, where it is another than decided; "" where it is not, or not told. */
  overruled(layer: number): string {
    const ran = this.kernel(layer)?.format ?? "";
    const decided = this.figures.formats[this.figures.format[layer] ?? 0] ?? "none";
    return ran && decided !== "none" && ran !== decided ? ran : "";
  }

  reasonOf(layer: number): string {
    return this.figures.reasons[this.figures.reason[layer] ?? 0] ?? "";
  }

  /** What the graph is coloured by: a preview shows its formats, because nothing else is known of it. */
  get coloured(): Quantity {
    return this.preview ? "format" : this.colour;
  }

  /** Errors on screen belong to an older plan: they are greyed out. */
  get stale(): boolean {
    return this.expected.size > 0 || this.figures.errorsRevision !== this.state.revision;
  }

  // -- the user's view ------------------------------------------------------------------------------------------------

  select(layers: Iterable<number>, focus?: number): void {
    this.selection = new Set(layers);
    const last = [...this.selection].pop();
    this.focus = focus ?? last ?? -1;
    this.emit("selection");
  }

  setColour(quantity: Quantity): void {
    this.colour = quantity;
    this.emit("colour");
  }

  setTab(tab: Tab): void {
    this.tab = tab;
    this.emit("tab");
  }

  setHovered(layer: number): void {
    if (layer === this.hovered) return;
    this.hovered = layer;
    this.emit("hover");
  }

  setOpen(groups: Iterable<number>): void {
    this.open = new Set([0, ...groups]);
    this.emit("groups");
  }

  /** Unfolds what hides a layer, and selects it; the graph brings it into sight. */
  reveal(layer: number): void {
    const hidden = this.model.lineage(this.model.groupOf(layer)).filter((group) => !this.open.has(group));
    if (hidden.length > 0) this.setOpen([...this.open, ...hidden]);
    this.select([layer]);
  }

  say(text: string, tone: Notice["tone"] = "note"): void {
    this.notice = { text, tone };
    this.emit("notice");
  }

  // -- the best plans -------------------------------------------------------------------------------------------------

  /** Shows what a budget would give, or with null the plan again. Graph and bar follow; nothing is laid out anew. */
  setPreview(preview: Preview | null): void {
    const before = this.preview;
    if (before === preview) return;
    this.preview = preview;
    const alike = before && preview && before.format.length === preview.format.length && before.taken === preview.taken;
    if (!alike || before.format.some((format, layer) => format !== preview.format[layer])) this.version += 1;
    this.emit("preview");
  }

  /** Sets the best plan within a budget, or a point of the front. Never rejects. */
  async take(ask: Requests["take"][0]): Promise<void> {
    this.taking = "error" in ask ? ask.error : 0;
    if (this.preview) this.setPreview({ ...this.preview, taken: true });
    else this.emit("preview");
    await this.command("take", ask);
    this.taking = null;
    if (this.preview?.taken) this.setPreview(null);
    else this.emit("preview"); // the user looks for another one already
  }

  /** Starts the search for the best plans, or stops it. Never rejects. */
  search(): Promise<void> {
    return this.command("search", {});
  }

  stopSearch(): Promise<void> {
    return this.command("stop_search", {});
  }

  /** Finds the scales of int8 anew. Never rejects. */
  calibrate(method: string): Promise<void> {
    return this.command("calibrate", { method });
  }

  private async command<K extends "take" | "search" | "stop_search" | "calibrate">(
    kind: K,
    ask: Requests[K][0],
  ): Promise<void> {
    if (this.source.readOnly) {
      this.say(this.source.readOnlyBecause);
      return;
    }
    try {
      const answer = await this.source.request(kind, ask);
      if ("call" in answer) this.say(answer.call, "call");
    } catch (error) {
      this.refuse(error);
    }
  }

  // -- edits ----------------------------------------------------------------------------------------------------------

  /** Changes the plan: shows at once what is expected, then what Python made of it. Never rejects. */
  async edit(edit: Edit): Promise<void> {
    if (this.source.readOnly) {
      this.say(this.source.readOnlyBecause);
      return;
    }
    this.setPreview(null); // an edit is one of the plan that is set
    this.expect(edit);
    this.waiting += 1;
    this.tell(true);
    const patience = setTimeout(() => this.say(BUSY), PATIENCE_MS);
    try {
      const { call } = await this.source.request("edit", { edit });
      this.say(call, "call");
    } catch (error) {
      this.refuse(error);
    } finally {
      clearTimeout(patience);
      this.waiting -= 1;
      // Python sends the new state before it answers, so what was expected is no longer needed.
      if (this.waiting === 0) this.expected.clear();
      this.tell(true);
    }
  }

  refuse(error: unknown): void {
    const text =
      error instanceof RequestError ? [error.what, error.why, error.fix].filter(Boolean).join(" ") : String(error);
    this.say(text, "error");
  }

  private expect(edit: Edit): void {
    let layers: number[] = [];
    let low = false;
    let format = "";
    if (edit.op === "toggle" || edit.op === "block" || edit.op === "allow") {
      layers = edit.layers;
      low = edit.op === "allow" || (edit.op === "toggle" && !layers.some((layer) => this.runsLow(layer)));
    } else if (edit.op === "use") {
      ({ layers, format } = edit);
    } else if (edit.op === "block_ops" || edit.op === "unblock_ops") {
      const ops = new Set(edit.ops);
      layers = Array.from({ length: this.model.layers }, (_, layer) => layer).filter((l) => ops.has(this.model.op(l)));
      low = edit.op === "unblock_ops";
    } else if (edit.op === "block_scope" || edit.op === "unblock_scope") {
      // A scope that is entered several times is several groups of one path.
      layers = this.model.structure.groups.path.flatMap((path, group) =>
        path === edit.path ? this.model.layersIn(group) : [],
      );
      low = edit.op === "unblock_scope";
    }
    for (const layer of layers) {
      const wanted = format || (low ? this.state.format : "fp32");
      if (format ? this.mayBe(layer, wanted) : this.isSwitchable(layer)) this.expected.set(layer, wanted);
    }
  }
}
