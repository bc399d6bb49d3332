/** What the made-up source answers for layer, values, tools, blacklist and export: plausible, and the same each time. */
import type { LayerDetails, LayerValues, Requests, Structure } from "../protocol";
import { RequestError } from "../source";

const POINTS = 1500;
const FP16_MAX = 65504;
const TAKEN = "taken.onnx"; // a path at which a file stands already

/** Returns a sequence of numbers in 0..1 that looks random and is the same each time. */
function sequence(seed: number): () => number {
  let state = seed + 1;
  return () => {
    state = (state * 48271) % 2147483647; // Lehmer's generator, Park and Miller 1993
    return state / 2147483647;
  };
}

export function layerDetails(made: Structure, layer: number): LayerDetails {
  const { layers, edges, tensors, dtypes, groups } = made;
  const op = made.ops[layers.op[layer] ?? 0] ?? "";
  const info = (tensor: number, kind: "value" | "input") => ({
    name: tensors.name[tensor] ?? "",
    dtype: dtypes[tensors.dtype[tensor] ?? 0] ?? "",
    shape: tensors.shape[tensor] ?? "?",
    kind,
  });
  const taken = edges.to.flatMap((to, edge) =>
    to === layer ? [info(edges.tensor[edge] ?? 0, (edges.from[edge] ?? 0) < layers.id.length ? "value" : "input")] : [],
  );
  const given = [...new Set(edges.from.flatMap((from, edge) => (from === layer ? [edges.tensor[edge] ?? 0] : [])))];
  const weighted = op === "MatMul" && layer % 2 === 1;
  const weight = { name: `${layers.id[layer]}.weight`, dtype: "float32", shape: "32×32" };
  return {
    layer,
    name: layers.id[layer] ?? "",
    domain: "",
    scope: groups.path[layers.group[layer] ?? 0] ?? "",
    attributes:
      op === "ReduceMean"
        ? [
            { name: "axes", value: "[-1]" },
            { name: "keepdims", value: "1" },
          ]
        : [],
    inputs: [...taken, ...(weighted ? [{ ...weight, kind: "weight" as const }] : [])],
    outputs: given.map((tensor) => info(tensor, "value")),
    weights: weighted
      ? [
          {
            ...weight,
            elements: 1024,
            bytes: 4096,
            min: -0.31,
            max: 0.28,
            mean: 1.2e-4,
            std: 0.08,
            zeros: 3,
            overflow: 0,
            subnormal: 2,
            flushed: 0,
          },
        ]
      : [],
    quantisation: weighted
      ? [
          { tensor: weight.name, dtype: "int8", axis: 0, block: 0, scales: 8, least: 0.001, largest: 0.02, zero: "0" },
          { tensor: "codes", dtype: "uint8", axis: null, block: 0, scales: 1, least: 0.5, largest: 0.5, zero: "128" },
        ]
      : [],
    source: made.sources[layers.source[layer] ?? 0] ?? "",
    code: layers.source[layer] ? "x = x + self.attention(self.norm1(x))" : "",
  };
}

/** Returns values around 2^centre; those of a layer that overflows reach beyond fp16. */
export function layerValues(
  made: Structure,
  layer: number,
  overflows: boolean,
  low: boolean,
  revision: number,
): LayerValues {
  const next = sequence(layer);
  const centre = overflows ? 14 : -3;
  const exact = Float32Array.from({ length: POINTS }, () => {
    const bell = next() + next() + next() + next() - 2; // close enough to a normal distribution
    return (next() < 0.5 && !overflows ? -1 : 1) * 2 ** (centre + bell * 6);
  });
  const plan = exact.map((value) =>
    !low
      ? value * (1 + 1e-3 * next())
      : Math.abs(value) > FP16_MAX
        ? Math.sign(value) * Number.POSITIVE_INFINITY
        : value * (1 + 2 ** -9 * (next() - 0.5)),
  );
  const first = Math.floor(Math.log2(Math.min(...exact.map(Math.abs))));
  const last = Math.floor(Math.log2(Math.max(...exact.map(Math.abs))));
  const bins = (values: Float32Array): number[] => {
    const found = new Array<number>(last - first + 1).fill(0);
    for (const value of values) {
      const bin = Math.floor(Math.log2(Math.abs(value))) - first;
      if (found[bin] !== undefined) found[bin] += 1;
    }
    return found;
  };
  return {
    layer,
    revision,
    output: `${made.ops[made.layers.op[layer] ?? 0]}_${layer}_out`,
    outputs: [`${made.ops[made.layers.op[layer] ?? 0]}_${layer}_out`],
    format: low ? "fp16" : "fp32",
    histogram: {
      first,
      exact: bins(exact),
      plan: bins(plan),
      exact_zeros: layer % 4 === 0 ? 12 : 0,
      plan_zeros: layer % 4 === 0 ? 12 : 0,
      exact_nonfinite: 0,
      plan_nonfinite: plan.filter((value) => !Number.isFinite(value)).length,
    },
    bands: { overflow: 65520, normal: 2 ** -14, subnormal: 2 ** -25 },
    scatter: { exact, plan, total: 2048 },
    provenance: "emulated: fp16 storage rounding, fp32 accumulation",
    note: "",
  };
}

const TOOLS = [
  { name: "modelopt", label: "ModelOpt AutoCast" },
  { name: "polygraphy", label: "Polygraphy" },
];

/** Returns the answer to what needs no state. */
export function reply<K extends keyof Requests>(kind: K, ask: Requests[K][0]): Requests[K][1] {
  if (kind === "tools") return { tools: TOOLS } as Requests[K][1];
  if (kind === "blacklist") {
    const { tool } = ask as Requests["blacklist"][0];
    return {
      text: `# ${tool}\n--nodes_to_exclude blocks/0/norm1/Pow_2`,
      note: "Paste it after the command.",
    } as Requests[K][1];
  }
  if (kind === "export") {
    const { what, path, overwrite } = ask as Requests["export"][0];
    if (path.endsWith(TAKEN) && !overwrite)
      throw new RequestError(`${path} exists.`, "It would be lost.", "Choose another path, or overwrite it.");
    return {
      path: `~/user/${path}`,
      note: what === "onnx" ? "12 casts; checked." : "",
      call: `x.export("${path}")`,
    } as Requests[K][1];
  }
  throw new RequestError(`The fixture does not answer '${kind}'.`);
}
