/** Range of each number format, for words about where a layer's values lie; the figures themselves come from Python. */

export interface Range {
  max: number; // largest finite value
  normal: number; // smallest normal value
  least: number; // smallest subnormal value
}

// IEEE 754-2019 table 3.6 (fp16), bfloat16 and TF32 as NVIDIA's A100 white paper, OCP 8-bit Floating Point 1.0 (fp8).
const RANGES: Record<string, Range> = {
  fp16: { max: 65504, normal: 2 ** -14, least: 2 ** -24 },
  bf16: { max: (2 - 2 ** -7) * 2 ** 127, normal: 2 ** -126, least: 2 ** -133 },
  tf32: { max: (2 - 2 ** -10) * 2 ** 127, normal: 2 ** -126, least: 2 ** -136 },
  fp8e4m3: { max: 448, normal: 2 ** -6, least: 2 ** -9 },
  fp8e5m2: { max: 57344, normal: 2 ** -14, least: 2 ** -16 },
};

/** Whether what lies beyond a format's range becomes its largest value, and not infinity. */
export function saturates(format: string): boolean {
  return format === "int8" || format.startsWith("fp8");
}

/** Returns the range of a format; null for int8, whose range is set by its scale. */
export function rangeOf(format: string): Range | null {
  return RANGES[format] ?? null;
}
