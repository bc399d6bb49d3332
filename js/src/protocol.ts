/** What Python and the view tell each other. The Python side is explorer/scene (data) and explorer/view (requests). */

/** A float in JSON: what JSON cannot hold is a word, what is not known is null. */
export type Num = number | "inf" | "-inf" | "nan" | null;

/**
 * The model as drawn; it goes over once.
 *
 * Nodes are numbered: layers first (0 .. layers.id.length-1, in execution order), then model inputs, then model outputs.
 */
export interface Structure {
  version: 1;
  name: string;
  digest: string;
  opset: number;
  producer: string;
  /** Interned strings that the columns index. */
  ops: string[];
  sources: string[]; // sources[0] is ""
  dtypes: string[];
  layers: {
    id: string[];
    op: number[]; // into ops (qualified op type)
    group: number[]; // into groups: the scope that directly holds the layer
    source: number[]; // into sources: "file.py:12" of the code that made it, or ""
    container: number[]; // layer whose body (If, Loop, Scan) holds this one; -1 for none
  };
  inputs: { name: string[]; tensor: number[] };
  outputs: { name: string[]; tensor: number[] };
  /** Tensors that edges carry (weights carry none). */
  tensors: { name: string[]; dtype: number[]; shape: string[] }; // shape as shown, e.g. "8×64×17", "batch×3", "?"
  edges: { from: number[]; to: number[]; tensor: number[] }; // nodes
  /** The tree of scopes; group 0 is the root (parent -1). Chains of single children are folded into one group. */
  groups: {
    label: string[]; // what is shown: "attention", or "encoder/layer.3" for a folded chain
    path: string[]; // the whole scope; "" for the root and for segments
    parent: number[];
    kind: ("scope" | "segment")[]; // a segment is a stretch of the execution order, cut where one tensor is live
  };
}

/** Columns by layer (and `cast` by edge) that change with plan and runs; decoded from a frame (frame.ts). */
export interface Figures {
  /** Plan that formats, reasons and casts belong to. */
  revision: number;
  /** Plan that the error columns belong to; older than `revision` while a run is under way. -1: never measured. */
  errorsRevision: number;
  formats: string[]; // "none", "fp32", the plan's low format, and int8 where it may stand beside: what `format` and `asked` index
  reasons: string[]; // what `reason` indexes
  errorProvenance: string;
  rangeProvenance: string;
  latencyProvenance: string; // "" when no latency is known
  latencyStandsIn: boolean; // it is shown only until the plan itself has been measured
  kernels: Kernel[]; // of the measured latency of this plan; empty where there is none, or the backend tells none
  firstNonfinite: number; // layer, or -1
  format: Uint8Array;
  asked: Uint8Array;
  blacklisted: Uint8Array; // 1: a rule or an override keeps it in fp32
  switchable: Uint8Array; // bits: 1 may run in the plan's low format, 2 may run in int8 beside it
  reason: Uint16Array;
  local_sqnr_db: Float32Array; // NaN: not measured, +inf: exact, -inf: inf or NaN in the low version
  local_rel_l2: Float32Array;
  local_max_abs: Float32Array;
  acc_sqnr_db: Float32Array;
  acc_rel_l2: Float32Array;
  acc_max_abs: Float32Array;
  sensitivity_db: Float32Array; // SQNR of the worst output when only that layer runs low (model of the search); empty until there is one
  saves_us: Float32Array; // what running it low saves, casts included, the other layers as planned; predicted; empty likewise
  costs: Float32Array; // by how much running it low raises the relative L2 error of the worst output; likewise
  max_abs: Float32Array; // of the exact values
  rms: Float32Array;
  overflow: Float64Array; // counts of elements of the exact result
  nan: Float64Array;
  subnormal: Float64Array;
  flushed: Float64Array;
  elements: Float64Array;
  fp32_us: Float32Array; // NaN: not known
  plan_us: Float32Array; // latency under the plan, casts apart
  latency_us: Float32Array; // what shares are of: under the plan, or of the fp32 model where nothing else is known
  cast: Uint8Array; // by edge: 0 none, 1 to the plan's low format, 2 to fp32, 3 to int8 beside it
}

/** One kernel or engine layer as it was measured: it may compute several layers of the model, and a layer take several. */
export interface Kernel {
  name: string;
  layers: number[]; // that it computes; of what the backend inserted, those that it serves
  us: Num;
  kind: "layer" | "reformat" | "cast" | "copy" | "other";
  format: string; // what it really computed in; "" where that is not told
  note: string;
}

export interface Figure {
  value: Num;
  text: string; // ready to show, with unit: "41.3 dB", "98.9 % → 9.7 %"
  provenance: string;
}

export interface Headline {
  output_error: Figure | null; // worst output, SQNR in dB
  metric: Figure | null; // accuracy before -> after, when there are labels
  low_share: Figure;
  casts: Figure | null;
  latency: Figure | null;
}

export interface TargetState {
  name: string; // "onnxruntime-cuda"; "" is "ONNX alone"
  label: string;
  ready: boolean; // can run here
  missing: string; // what is missing, and how to get it; "" when ready
  kernels: string; // what its list of kernels is
}

export interface FormatState {
  name: string;
  about: string; // what it is and needs, in a line
  off: string; // why the model cannot have it; "" when it can
}

/** A device that latency can be shown of. */
export interface DeviceState {
  name: string;
  label: string;
  group: "measured here" | "measured elsewhere" | "predicted";
  ready: boolean;
  missing: string; // what is missing, and how to get it; "" when ready
}

/** The latency of the plan, measured on the chosen device. */
export interface MeasuredState {
  backend: string;
  whole_us: Num; // null: not measured
  spread_us: Num;
  layers_us: Num; // sum over the layers: it is not the whole
  overhead_us: Num;
  formats: string; // what the device computed in
  notes: string[];
  provenance: string;
  refused: string; // why the plan cannot be measured there; "" where it can, or was not tried
}

/** Where the scales of int8 come from. */
export interface CalibrationState {
  wanted: boolean; // the plan has layers in int8
  method: string; // "" before the first calibration
  methods: string[]; // that can be chosen
  text: string; // "percentile 99.99 over 360 samples"
  notes: string[];
}

export interface Tried {
  index: number;
  label: string; // "full fp16", "20 layers in fp32"
  sqnr_db: Num; // worst output
  metric: Num; // accuracy 0..1
  latency_us: Num;
  low_share: number;
  casts: number | null;
  error_provenance: string;
  latency_provenance: string;
  current: boolean;
}

export interface FindingState {
  id: string;
  tone: "stop" | "warn" | "good" | "note";
  title: string;
  text: string; // plain text
  evidence: string; // plain text: the figures it rests on; may be ""
  layers: number[]; // concerned
  fix: string; // label of the button; "" when nothing can be applied
  verdict: "" | "confirmed" | "ruled out" | "untested"; // of a cause that was tested; "" where nothing was to be tested
  code: string; // the Python call that the button makes; "" likewise
}

export interface RunState {
  state: "idle" | "running" | "cancelled" | "failed";
  stage: string;
  done: number;
  total: number; // 0: not known
  seconds: number | null; // of the last finished run; null where the plan had been run before
  error: { what: string; why: string; fix: string } | null;
}

export interface PanelState {
  revision: number; // counts changes of the plan, of its format, of keep-I/O, of the target
  format: string;
  formats: FormatState[]; // that a plan may have
  uses: string[]; // low formats that layers of this plan may be given, its own first
  preset: string; // "full", "safe", "fp32", or "" for none of them
  presets: { name: string; label: string }[];
  keep_io: boolean;
  io_choice: boolean; // inputs and outputs may have the low format
  plan: { rules: { kind: string; pattern: string; format: string }[]; layers: Record<string, string>; text: string };
  target: string;
  targets: TargetState[];
  gpu: string; // device that latency is shown of; "" for none
  devices: DeviceState[];
  measured: MeasuredState | null; // null where the device is none that measures
  calibration: CalibrationState;
  run: RunState;
  undo: number; // steps that can be taken
  redo: number;
  ops: { op: string; count: number; low: number; blocked: boolean }[]; // op types with float tensors, most frequent first
  headline: Headline;
  outputs: { name: string; sqnr_db: Num; rel_l2: Num; max_abs: Num; overflow: number; nan: number }[];
  tried: Tried[];
  findings: FindingState[];
  search: SearchState;
  warnings: string[];
  samples: string; // "360 samples from digits.npz, in batches of 32"
  random: boolean; // inputs are random: every view says so
  calls: string[]; // Python calls that the panel made, oldest first
  code: string; // Python that reproduces the current state
  created: string; // date of a report; "" when live
}

/** One plan on the Pareto front of error and latency. Errors are relative L2 of the worst output: 1e-3 is 60 dB SQNR. */
export interface FrontPoint {
  index: number;
  predicted_error: Num; // by the noise model
  error: Num; // as the emulation gave it; null until it was run
  metric: Num; // of the user's task, under this plan; null where there is none or it was not run
  latency_us: Num;
  low: number; // layers that run low
  low_share: number;
  casts: number | null;
  label: string; // "20 layers in fp32"
  current: boolean;
}

/** The search for the best plans, and the front that it found. */
export interface SearchState {
  state: "idle" | "running" | "done" | "cancelled" | "failed";
  stage: string;
  done: number;
  total: number; // 0: not known
  seconds_left: number | null;
  error: { what: string; why: string; fix: string } | null;
  points: FrontPoint[]; // from the most exact to the fastest; empty until there is a front
  /** What the budget slider spans: relative L2 errors, both above zero; null while there is no front. */
  budget: { low: number; high: number } | null;
  chosen: Num; // the budget that the current plan was taken for; null when it was not taken from the front
  device: string; // that latency is of: "H100 SXM"
  error_provenance: string;
  latency_provenance: string;
  summary: string; // "412 of 890 tensors measured alone, the rest in groups; 14 layers keep fp32: they make inf or NaN"
  stale: string; // why the front does not fit what is set now ("the format changed"), "" when it does
}

/** What the front gives for a budget, before it is run. */
export interface BudgetPreview {
  format: Uint8Array; // by layer, into Figures.formats
  predicted_error: Num;
  latency_us: Num;
  low_share: number;
  seconds: number; // that the answer took
}

/** A plan that was run without being set. */
export interface TrialResult {
  before: { error: Num; metric: Num; latency_us: Num };
  after: { error: Num; metric: Num; latency_us: Num };
  text: string; // both in words, with units and provenance
}

/** An edit of the plan. Layers are indices, in any order. */
export type Edit =
  | { op: "toggle"; layers: number[] } // to fp32 if any of them runs low, else to the low format
  | { op: "block" | "allow"; layers: number[] }
  | { op: "use"; format: string; layers: number[] } // fp32, or one of PanelState.uses
  | { op: "use_ops"; format: string; ops: string[] }
  | { op: "use_scope"; format: string; path: string }
  | { op: "block_ops" | "unblock_ops"; ops: string[] }
  | { op: "block_scope" | "unblock_scope"; path: string }
  | { op: "preset"; name: string }
  | { op: "format"; name: string }
  | { op: "keep_io"; value: boolean }
  | { op: "undo" | "redo" }
  | { op: "goto"; tried: number } // back to a plan that was tried
  | { op: "fix"; finding: string };

export type ExportWhat = "onnx" | "plan" | "report" | "csv" | "blacklist";

/** Requests, by kind: what goes in, and what comes back. */
export interface Requests {
  edit: [{ edit: Edit }, { call: string }];
  target: [{ name: string }, { call: string }];
  gpu: [{ name: string }, { call: string }];
  calibrate: [{ method: string }, { call: string }]; // find the scales of int8 anew, in the background
  run: [Record<string, never>, Record<string, never>]; // again, after a cancel or a failure
  cancel: [Record<string, never>, Record<string, never>];
  layer: [{ layer: number }, LayerDetails];
  values: [{ layer: number; output: number }, LayerValues];
  export: [
    { what: ExportWhat; path: string; tool?: string; overwrite?: boolean },
    { path: string; note: string; call: string },
  ];
  blacklist: [{ tool: string }, { text: string; note: string }]; // the blacklist in another tool's syntax
  tools: [Record<string, never>, { tools: { name: string; label: string }[] }];
  search: [Record<string, never>, { call: string }]; // start, or go on with what was measured
  stop_search: [Record<string, never>, Record<string, never>];
  budget: [{ error: number }, BudgetPreview]; // while the slider is dragged: changes nothing
  take: [{ error: number } | { point: number }, { call: string }]; // set the best plan within the budget, run and repaired
  trial: [{ edit: Edit }, TrialResult]; // what if
  ping: [Record<string, never>, Record<string, never>]; // is anybody there?
  plotly: [Record<string, never>, { script: string }];
  picture: [{ png: string }, Record<string, never>]; // a data: URL of the graph, kept for notebooks without a kernel
}
export type Kind = keyof Requests;

export interface TensorInfo {
  name: string;
  dtype: string;
  shape: string;
  kind: "value" | "weight" | "input" | "output" | "absent";
}

export interface WeightFigures {
  name: string;
  dtype: string;
  shape: string;
  elements: number;
  bytes: number;
  min: Num;
  max: Num;
  mean: Num;
  std: Num;
  zeros: number;
  overflow: number; // what the plan's format would lose
  subnormal: number;
  flushed: number;
}

/** How the source model quantises a tensor: (code - zero) * scale. */
export interface Quantisation {
  tensor: string;
  dtype: string; // of the codes: "int8", "uint8", "int4", ...
  axis: number | null; // along which scales differ; null: one in all
  block: number; // elements that share a scale along the axis; 0: all of a channel
  scales: number;
  least: number | null; // of the scales
  largest: number | null;
  zero: string; // the zero point, or the range of them
}

export interface LayerDetails {
  layer: number;
  name: string; // in the source model; may be ""
  domain: string;
  scope: string;
  attributes: { name: string; value: string }[];
  inputs: TensorInfo[];
  outputs: TensorInfo[];
  weights: WeightFigures[];
  quantisation: Quantisation[]; // of its tensors that the source model itself stores in low precision
  source: string; // "file.py:12"
  code: string; // the line of source code, when the export carries it
}

/** Values of one output of a layer. */
export interface LayerValues {
  layer: number;
  revision: number;
  output: string;
  outputs: string[]; // float outputs that can be shown
  format: string;
  histogram: {
    first: number; // log2: bin i holds |value| in [2^(first+i), 2^(first+i+1))
    exact: number[];
    plan: number[] | null; // under the plan; null where not known
    exact_zeros: number;
    plan_zeros: number | null;
    exact_nonfinite: number;
    plan_nonfinite: number | null;
  };
  /** |value| from which on fp16 overflows, is normal, is subnormal; below the last it is flushed to zero. */
  bands: { overflow: number; normal: number; subnormal: number };
  scatter: { exact: Float32Array; plan: Float32Array; total: number } | null; // at most a few thousand points
  provenance: string;
  note: string;
}
