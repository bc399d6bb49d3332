/** A transformer in miniature for tests and the development page: residual edges, overflow in its norms, any depth. */
import type { Edit, Figures, Kernel, PanelState, Requests, SearchState, Structure } from "../protocol";
import { type Plotly, RequestError, type Source } from "../source";
import { CAUSES } from "./causes";
import { layerDetails, layerValues, reply } from "./replies";
import { EMPTY, FakeSearch } from "./search";

const NORM = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"];
const BREAKS = new Set(["Pow", "Sqrt"]);

/** Returns a chain of blocks (norm, attention, norm, mlp), 24 layers each, between one input and one output. */
export function transformer(blocks: number): Structure {
  const ops: string[] = [];
  const s: Structure = {
    version: 1,
    name: `transformer of ${blocks} blocks`,
    digest: "0",
    opset: 18,
    producer: "fixture",
    ops,
    sources: ["", "model.py:12", "model.py:40"],
    dtypes: ["float32", "int64"],
    layers: { id: [], op: [], group: [], source: [], container: [] },
    inputs: { name: ["pixels"], tensor: [0] },
    outputs: { name: ["scores"], tensor: [] },
    tensors: { name: ["pixels"], dtype: [0], shape: ["4×16×32"] },
    edges: { from: [], to: [], tensor: [] },
    groups: { label: ["transformer"], path: [""], parent: [-1], kind: ["scope"] },
  };
  const group = (label: string, parent: number): number => {
    const above = s.groups.path[parent];
    s.groups.label.push(label);
    s.groups.path.push(above ? `${above}/${label}` : label);
    s.groups.parent.push(parent);
    s.groups.kind.push("scope");
    return s.groups.label.length - 1;
  };
  const makers: number[] = [-1]; // by tensor: the layer that makes it; -1 is the model input
  const pending: [number, number][] = []; // [tensor, layer]
  const layer = (op: string, inside: number, ...takes: number[]): number => {
    const at = s.layers.id.length;
    if (!ops.includes(op)) ops.push(op);
    s.layers.id.push(`${s.groups.path[inside]}/${op}_${at}`);
    s.layers.op.push(ops.indexOf(op));
    s.layers.group.push(inside);
    s.layers.source.push(at % 3);
    s.layers.container.push(-1);
    for (const tensor of takes) pending.push([tensor, at]);
    s.tensors.name.push(`${op}_${at}_out`);
    s.tensors.dtype.push(0);
    s.tensors.shape.push("4×16×32");
    makers.push(at);
    return makers.length - 1;
  };
  const norm = (inside: number, x: number): number => {
    const [mean, sub, pow, mean2, add, sqrt, div, mul] = NORM as [string, ...string[]];
    const centred = layer(sub as string, inside, x, layer(mean as string, inside, x));
    const square = layer(pow as string, inside, centred);
    const root = layer(sqrt as string, inside, layer(add as string, inside, layer(mean2 as string, inside, square)));
    return layer(mul as string, inside, layer(div as string, inside, centred, root));
  };
  const top = group("blocks", 0);
  let x = 0;
  for (let block = 0; block < blocks; block++) {
    const at = group(`${block}`, top);
    const n1 = norm(group("norm1", at), x);
    const attention = group("attention", at);
    const [q, k, v] = ["MatMul", "MatMul", "MatMul"].map((op) => layer(op, attention, n1)) as [number, number, number];
    const mixed = layer("MatMul", attention, layer("Softmax", attention, layer("MatMul", attention, q, k)), v);
    x = layer("Add", at, x, mixed);
    const n2 = norm(group("norm2", at), x);
    const mlp = group("mlp", at);
    x = layer("Add", at, x, layer("MatMul", mlp, layer("Gelu", mlp, layer("MatMul", mlp, n2))));
  }
  const layers = s.layers.id.length;
  for (const [tensor, to] of pending) {
    s.edges.from.push(makers[tensor] === -1 ? layers : (makers[tensor] as number));
    s.edges.to.push(to);
    s.edges.tensor.push(tensor);
  }
  s.edges.from.push(makers[x] as number);
  s.edges.to.push(layers + 1);
  s.edges.tensor.push(x);
  s.outputs.tensor.push(x);
  return s;
}

/** A source without Python: edits take effect, after `delay` ms the errors follow; what it answers is made up. */
export class FakeSource implements Source {
  readonly readOnlyBecause = "This is a report.";
  readonly asked: { kind: string; ask: unknown }[] = [];
  private watchers = new Set<() => void>();
  private low: Uint8Array;
  private readonly tried: Uint8Array[];
  private current = 0;
  private readonly front: FakeSearch;
  private found: SearchState = EMPTY;
  private searching: ReturnType<typeof setTimeout> | undefined;
  private now: PanelState;
  private shown: Figures;

  constructor(
    private readonly made: Structure,
    readonly readOnly = false,
    private readonly delay = 0,
  ) {
    this.low = new Uint8Array(made.layers.id.length).fill(1);
    this.tried = [this.low.slice()];
    this.front = new FakeSearch(made.layers.id.length, (layer) => this.breaks(layer));
    this.now = this.makeState(0);
    this.shown = this.makeFigures(0, 0);
  }

  structure = (): Structure => this.made;
  state = (): PanelState => this.now;
  figures = (): Figures => this.shown;

  onChange(changed: () => void): () => void {
    this.watchers.add(changed);
    return () => this.watchers.delete(changed);
  }

  async request<K extends keyof Requests>(kind: K, ask: Requests[K][0]): Promise<Requests[K][1]> {
    this.asked.push({ kind, ask });
    if (kind === "edit") return { call: this.edit((ask as { edit: Edit }).edit) } as Requests[K][1];
    if (kind === "search") return this.search() as Requests[K][1];
    if (kind === "calibrate") return { call: "x.calibrate(...)" } as Requests[K][1];
    if (kind === "stop_search") return this.stopSearch() as Requests[K][1];
    if (kind === "budget") return this.front.preview((ask as Requests["budget"][0]).error) as Requests[K][1];
    if (kind === "take") return (await this.take(ask as Requests["take"][0])) as Requests[K][1];
    if (kind === "trial") return (await this.trial((ask as Requests["trial"][0]).edit)) as Requests[K][1];
    const { layer } = ask as { layer: number };
    if (kind === "layer") return layerDetails(this.made, layer) as Requests[K][1];
    if (kind === "values") {
      const low = this.low[layer] === 1;
      return layerValues(this.made, layer, this.breaks(layer), low, this.now.revision) as Requests[K][1];
    }
    return reply(kind, ask);
  }

  /** What `plotly()` gives: the library itself on a development page, a recorder in tests. */
  charts: Plotly | null = null;

  async plotly(): Promise<Plotly> {
    if (!this.charts) throw new RequestError("The fixture has no plotly.");
    return this.charts;
  }

  dispose(): void {
    clearTimeout(this.searching);
    this.watchers.clear();
  }

  /** Puts the front there at once, as after a search. */
  findFront(change: Partial<SearchState> = {}): void {
    this.become({ ...this.front.done(this.low), ...change });
  }

  private become(found: SearchState): void {
    this.found = found;
    const { revision } = this.now;
    this.now = this.makeState(revision);
    this.shown = this.makeFigures(revision, this.shown.errorsRevision);
    this.tell();
  }

  private search(): Requests["search"][1] {
    const steps = 10;
    const step = (done: number): void => {
      const state = { stage: "measuring what rounding costs", done, total: steps, seconds_left: (steps - done) / 2 };
      const before = done > 3 ? this.front.done(this.low) : this.found;
      this.become({ ...before, ...state, state: "running" });
      this.searching = setTimeout(() => (done < steps ? step(done + 1) : this.findFront()), this.delay);
    };
    step(0);
    return { call: "x.search()" };
  }

  private stopSearch(): Requests["stop_search"][1] {
    clearTimeout(this.searching);
    this.become({ ...this.found, state: "cancelled" });
    return {};
  }

  private async take(ask: Requests["take"][0]): Promise<Requests["take"][1]> {
    await this.pause();
    const plan = "error" in ask ? this.front.within(ask.error) : this.front.plans()[ask.point];
    this.low = (plan ?? this.low).slice();
    const chosen = "error" in ask ? ask.error : this.front.figures(this.low).error;
    if (this.found.budget) this.found = { ...this.front.done(this.low), chosen };
    this.changed();
    return { call: `x.plan = x.front.best(max_error=${chosen.toExponential(1)})` };
  }

  private async trial(edit: Edit): Promise<Requests["trial"][1]> {
    await this.pause();
    return this.front.trial(this.low, this.after(edit));
  }

  private pause(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, this.delay));
  }

  /** Returns the plan after an edit, by layer 1 where it runs low. */
  private after(edit: Edit): Uint8Array {
    const low = this.low.slice();
    if (edit.op === "toggle") {
      const to = edit.layers.some((layer) => low[layer]) ? 0 : 1;
      for (const layer of edit.layers) low[layer] = to;
    } else if (edit.op === "use") {
      for (const layer of edit.layers) low[layer] = { fp16: 1, int8: 2 }[edit.format] ?? 0;
    } else if (edit.op === "block" || edit.op === "allow") {
      for (const layer of edit.layers) low[layer] = edit.op === "allow" ? 1 : 0;
    } else if (edit.op === "fix") {
      return low.map((one, layer) => (this.breaks(layer) ? 0 : one));
    } else if (edit.op === "goto") {
      return (this.tried[edit.tried] ?? low).slice();
    }
    return low;
  }

  private edit(edit: Edit): string {
    this.low = this.after(edit);
    if (this.found.budget) this.found = { ...this.front.done(this.low), state: this.found.state };
    this.changed();
    return `x.plan = x.plan.set({...})  # ${edit.op}`;
  }

  /** Tells of another plan: at once what it is, and after a while its errors. */
  private changed(): void {
    const known = this.tried.findIndex((plan) => plan.every((low, layer) => low === this.low[layer]));
    this.current = known >= 0 ? known : this.tried.push(this.low.slice()) - 1;
    const revision = this.now.revision + 1;
    this.now = this.makeState(revision);
    this.shown = this.makeFigures(revision, this.shown.errorsRevision);
    this.tell();
    setTimeout(() => {
      this.shown = this.makeFigures(revision, revision);
      this.tell();
    }, this.delay);
  }

  private breaks(layer: number): boolean {
    return BREAKS.has(this.made.ops[this.made.layers.op[layer] as number] as string);
  }

  private tell(): void {
    for (const watcher of this.watchers) watcher();
  }

  /** Puts a measured latency there: kernels as they are given, of this plan. */
  measure(kernels: Kernel[], refused = ""): void {
    this.kernels = kernels;
    this.refused = refused;
    const { revision } = this.now;
    this.now = this.makeState(revision);
    this.shown = this.makeFigures(revision, this.shown.errorsRevision);
    this.tell();
  }

  private kernels: Kernel[] | null = null;
  private refused = "";

  private makeState(revision: number): PanelState {
    const low = this.low.reduce((sum, one) => sum + (one ? 1 : 0), 0);
    const share = low / this.low.length;
    return {
      revision,
      format: "fp16",
      formats: [
        { name: "fp16", about: "half the bytes", off: "" },
        { name: "bf16", about: "range of fp32", off: "needs opset 13" },
        { name: "int8", about: "needs a calibration", off: "" },
      ],
      uses: ["fp16", "int8"],
      preset: revision === 0 ? "full" : "",
      presets: ["full", "safe", "fp32"].map((name) => ({ name, label: name })),
      keep_io: true,
      io_choice: true,
      plan: { rules: [], layers: {}, text: "fp16 plan" },
      target: "onnxruntime-cuda",
      targets: [
        {
          name: "onnxruntime-cuda",
          label: "ONNX Runtime, CUDA",
          ready: false,
          missing: "not installed: pip install onnxruntime-gpu",
          kernels: "snapshot of 1.31.1",
        },
        { name: "onnxruntime-cpu", label: "ONNX Runtime, CPU", ready: true, missing: "", kernels: "live" },
      ],
      gpu: "H100",
      devices: [
        { name: "this CPU", label: "this CPU", group: "measured here", ready: true, missing: "" },
        {
          name: "tensorrt",
          label: "TensorRT",
          group: "measured here",
          ready: false,
          missing: "no device: needs a GPU",
        },
        { name: "A100", label: "A100", group: "predicted", ready: true, missing: "" },
        { name: "H100", label: "H100", group: "predicted", ready: true, missing: "" },
      ],
      measured: this.kernels && {
        backend: "tensorrt",
        whole_us: this.refused ? null : 37,
        spread_us: 1,
        layers_us: 41,
        overhead_us: 3,
        formats: "strongly typed",
        notes: [],
        provenance: "measured: TensorRT 11.4 on a fixture",
        refused: this.refused,
      },
      calibration: {
        wanted: this.low.includes(2),
        method: "percentile",
        methods: ["minmax", "percentile", "entropy"],
        text: "percentile 99.99 over 360 samples",
        notes: [],
      },
      run: { state: "idle", stage: "", done: 0, total: 0, seconds: 0.2, error: null },
      undo: revision,
      redo: 0,
      ops: this.made.ops.map((op, index) => {
        const held = this.made.layers.op.flatMap((at, layer) => (at === index ? [layer] : []));
        return { op, count: held.length, low: held.filter((layer) => this.low[layer]).length, blocked: false };
      }),
      headline: {
        output_error: { value: -3.2, text: "-3.2 dB", provenance: "emulated: fp16 storage rounding" },
        metric: { value: 0.097, text: "98.9 % → 9.7 %", provenance: "emulated, 360 samples" },
        low_share: { value: share, text: `${(100 * share).toFixed(0)} %`, provenance: "of the layers with floats" },
        casts: { value: 12, text: "12", provenance: "inserted by conversion" },
        latency: { value: 42, text: "42 µs", provenance: "predicted: roofline of H100" },
      },
      outputs: [{ name: "scores", sqnr_db: -3.2, rel_l2: 1.4, max_abs: 12, overflow: 0, nan: 0 }],
      tried: this.tried.map((plan, index) => this.makeTried(plan, index)),
      findings: [
        {
          id: "overflow",
          tone: "stop",
          title: "20 layers overflow in fp16",
          text: "The square of the centred values leaves fp16's range.",
          evidence: "largest |value| 4.2e6, fp16 ends at 65,504",
          layers: [2, 5],
          fix: "Keep these 20 layers in fp32",
          verdict: "",
          code: 'x.plan = x.plan.block(layers=["*norm*/Pow"])',
        },
        ...CAUSES,
      ],
      search: this.found,
      warnings: [],
      samples: "360 samples from digits.npz, in batches of 32",
      random: false,
      calls: [],
      code: 'import explorer\n\nx = explorer.open("model.onnx")',
      created: this.readOnly ? "2026-01-01" : "",
    };
  }

  private makeTried(plan: Uint8Array, index: number): PanelState["tried"][number] {
    const low = plan.reduce((sum, one) => sum + (one ? 1 : 0), 0) / plan.length;
    const broken = plan.some((one, layer) => one === 1 && this.breaks(layer));
    return {
      index,
      label: index === 0 ? "full fp16" : `${plan.filter((one) => one === 0).length} layers in fp32`,
      sqnr_db: broken ? -3.2 : -20 * Math.log10(this.front.figures(plan).error),
      metric: broken ? 0.097 : 0.989,
      latency_us: this.front.figures(plan).us,
      low_share: low,
      casts: index === 0 ? 2 : 12,
      error_provenance: "emulated",
      latency_provenance: "predicted: roofline of H100",
      current: index === this.current,
    };
  }

  private makeFigures(revision: number, errorsRevision: number): Figures {
    const { layers, ops, edges } = { layers: this.made.layers, ops: this.made.ops, edges: this.made.edges };
    const count = layers.id.length;
    const column = (value: (layer: number) => number): Float32Array =>
      Float32Array.from({ length: count }, (_, i) => value(i));
    const searched = (value: (layer: number) => number): Float32Array =>
      this.found.points.length > 0 ? column(value) : new Float32Array(0);
    const counts = (value: (layer: number) => number): Float64Array =>
      Float64Array.from({ length: count }, (_, i) => value(i));
    const breaks = (layer: number): boolean => BREAKS.has(ops[layers.op[layer] as number] as string);
    let lost = false;
    const accumulated = column((layer) => {
      if (this.low[layer] && breaks(layer)) lost = true;
      return lost ? (breaks(layer) ? Number.NEGATIVE_INFINITY : 3 - (layer % 5)) : 70 - (30 * layer) / count;
    });
    const formatOf = (node: number): number => (node < count ? (this.low[node] ?? 0) : 0);
    return {
      revision,
      errorsRevision,
      formats: ["none", "fp32", "fp16", "int8"],
      reasons: ["the plan runs layers in fp16 by default", "set to fp32 by the user"],
      errorProvenance: "emulated: fp16 storage rounding, fp32 accumulation",
      rangeProvenance: "measured: fp32 on onnxruntime-cpu",
      latencyProvenance: "predicted: roofline of H100",
      latencyStandsIn: false,
      kernels: this.kernels ?? [],
      firstNonfinite: lost ? accumulated.indexOf(Number.NEGATIVE_INFINITY) : -1,
      format: Uint8Array.from(this.low, (low) => low + 1),
      asked: Uint8Array.from(this.low, (low) => low + 1),
      blacklisted: Uint8Array.from(this.low, (low) => (low ? 0 : 1)),
      switchable: Uint8Array.from({ length: count }, (_, layer) =>
        ops[layers.op[layer] as number] === "MatMul" ? 3 : 1,
      ),
      reason: Uint16Array.from(this.low, (low) => (low ? 0 : 1)),
      local_sqnr_db: column((layer) => (breaks(layer) ? Number.NEGATIVE_INFINITY : 74 - (layer % 7))),
      local_rel_l2: column((layer) => (breaks(layer) ? Number.POSITIVE_INFINITY : 2e-4)),
      local_max_abs: column(() => 1e-3),
      acc_sqnr_db: accumulated,
      acc_rel_l2: column((layer) => 10 ** (-(accumulated[layer] as number) / 20)),
      acc_max_abs: column(() => 1e-2),
      sensitivity_db: searched((layer) => -10 * Math.log10(this.front.parts[layer]?.noise ?? 0)),
      saves_us: searched((layer) => this.front.parts[layer]?.saves ?? Number.NaN),
      costs: searched((layer) => this.front.cost(this.low, layer)),
      max_abs: column((layer) => (breaks(layer) ? 4.2e6 : 812)),
      rms: column(() => 20),
      overflow: counts((layer) => (breaks(layer) ? 2048 : 0)),
      nan: counts(() => 0),
      subnormal: counts((layer) => layer % 3),
      flushed: counts(() => 0),
      elements: counts(() => 2048),
      fp32_us: column((layer) => 1 + (layer % 5)),
      plan_us: column((layer) => (1 + (layer % 5)) * (this.low[layer] ? 0.6 : 1)),
      latency_us: column((layer) => (1 + (layer % 5)) * (this.low[layer] ? 0.6 : 1)),
      cast: Uint8Array.from(edges.from, (from, edge) => {
        const to = edges.to[edge] as number;
        const [before, after] = [formatOf(from), formatOf(to)];
        return before === after ? 0 : after === 0 ? 2 : after === 2 ? 3 : 1;
      }),
    };
  }
}
