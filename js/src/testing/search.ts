/** A made-up search: every layer adds its own squared error and saves its own time, and breaking layers stay in fp32. */
import type { BudgetPreview, FrontPoint, SearchState, TrialResult } from "../protocol";

const POINTS = 14;
const BASE_US = 70;
const MEASURED = 1.12; // measured over predicted error: the model errs a little
export const ERRORS = "predicted: noise model of 212 measured tensors";
export const TIMES = "predicted: roofline of H100";

export const EMPTY: SearchState = {
  state: "idle",
  stage: "",
  done: 0,
  total: 0,
  seconds_left: null,
  error: null,
  points: [],
  budget: null,
  chosen: null,
  device: "H100",
  error_provenance: "",
  latency_provenance: "",
  summary: "",
  stale: "",
};

/** One layer of the made-up model. */
export interface Part {
  noise: number; // squared relative error of the output when it runs low; Infinity breaks it
  saves: number; // microseconds
}

export class FakeSearch {
  /** Layers in the order in which they turn low: most time for least error first. */
  private readonly order: number[];
  readonly parts: readonly Part[];

  constructor(count: number, breaks: (layer: number) => boolean) {
    this.parts = Array.from({ length: count }, (_, layer) => ({
      noise: breaks(layer) ? Number.POSITIVE_INFINITY : 10 ** (-6.5 - ((layer * 7) % 13) / 4),
      saves: breaks(layer) ? 0.3 : 0.4 * (1 + (layer % 5)) - ((layer * 11) % 17 === 0 ? 1.3 : 0),
    }));
    this.order = this.parts.flatMap(({ noise, saves }, layer) => (Number.isFinite(noise) && saves > 0 ? [layer] : []));
    const worth = (layer: number): number => this.part(layer).saves / this.part(layer).noise;
    this.order.sort((a, b) => worth(b) - worth(a));
  }

  private part(layer: number): Part {
    return this.parts[layer] as Part;
  }

  /** Returns relative error and latency of a plan, by layer 1 where it runs low. */
  figures(low: Uint8Array): { error: number; us: number } {
    let [noise, us] = [0, this.whole];
    low.forEach((one, layer) => {
      if (one) [noise, us] = [noise + this.part(layer).noise, us - this.part(layer).saves];
    });
    return { error: Math.sqrt(noise), us };
  }

  /** Returns by how much running a layer low raises the error of a plan, without what breaks it. */
  cost(low: Uint8Array, layer: number): number {
    if (this.summed.of !== low) {
      const noise = low.reduce(
        (sum, one, at) => sum + (one && Number.isFinite(this.part(at).noise) ? this.part(at).noise : 0),
        0,
      );
      this.summed = { of: low, noise };
    }
    const own = this.part(layer).noise;
    const others = Math.max(0, this.summed.noise - (low[layer] && Number.isFinite(own) ? own : 0));
    return Math.sqrt(others + own) - Math.sqrt(others);
  }
  private summed: { of: Uint8Array | null; noise: number } = { of: null, noise: 0 };

  private get whole(): number {
    return BASE_US + this.parts.reduce((sum, { saves }) => sum + Math.max(0, saves), 0);
  }

  /** Returns the plan of the first layers in order. */
  private first(count: number): Uint8Array {
    const low = new Uint8Array(this.parts.length);
    for (const layer of this.order.slice(0, count)) low[layer] = 1;
    return low;
  }

  /** Returns the plan with most layers low whose predicted error is within the budget. */
  within(error: number): Uint8Array {
    let noise = 0;
    let count = 0;
    for (const layer of this.order) {
      noise += this.part(layer).noise;
      if (Math.sqrt(noise) > error * (1 + 1e-9)) break;
      count += 1;
    }
    return this.first(count);
  }

  preview(error: number): BudgetPreview {
    const low = this.within(error);
    const figures = this.figures(low);
    return {
      format: low.map((one) => (one ? 2 : 1)),
      predicted_error: figures.error,
      latency_us: figures.us,
      low_share: low.reduce((sum, one) => sum + one, 0) / low.length,
      seconds: 0.004,
    };
  }

  /** Returns the plans of the front, from the most exact to the fastest. */
  plans(): Uint8Array[] {
    const counts = Array.from({ length: POINTS }, (_, at) => Math.round((this.order.length * at) / (POINTS - 1)));
    return [...new Set(counts)].map((count) => this.first(count));
  }

  /** Returns the state after a search whose points were all run, except some. */
  done(current: Uint8Array): SearchState {
    const plans = this.plans();
    const points = plans.map((low, index) => this.point(low, index, current));
    const errors = points.map((point) => point.predicted_error as number).filter((error) => error > 0);
    return {
      ...EMPTY,
      state: "done",
      points,
      budget: { low: Math.min(...errors) / 2, high: Math.max(...errors) },
      error_provenance: ERRORS,
      latency_provenance: TIMES,
      summary: "180 of 212 tensors measured alone, the rest in groups; 4 layers keep fp32: they make inf or NaN.",
    };
  }

  private point(low: Uint8Array, index: number, current: Uint8Array): FrontPoint {
    const { error, us } = this.figures(low);
    const count = low.reduce((sum, one) => sum + one, 0);
    const run = index % 4 !== 3;
    return {
      index,
      predicted_error: error,
      error: run ? error * MEASURED ** ((index % 3) - 1) : null,
      metric: run ? 0.989 - 0.02 * (index / POINTS) ** 2 : null,
      latency_us: us,
      low: count,
      low_share: count / low.length,
      casts: 2 + ((index * 5) % 9),
      label: count === 0 ? "all in fp32" : `${low.length - count} layers in fp32`,
      current: low.every((one, layer) => one === current[layer]),
    };
  }

  /** Returns what another plan would change. */
  trial(before: Uint8Array, after: Uint8Array): TrialResult {
    const figures = (low: Uint8Array) => {
      const { error, us } = this.figures(low);
      return {
        error: Number.isFinite(error) ? error : ("inf" as const),
        metric: Number.isFinite(error) ? 0.985 : 0.097,
        latency_us: us,
      };
    };
    return {
      before: figures(before),
      after: figures(after),
      text: "Errors emulated: fp16 storage rounding, 360 samples. Latency predicted: roofline of H100.",
    };
  }
}
