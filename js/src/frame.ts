/** Figures as they travel: a header in JSON, then columns of numbers, each aligned to 8 bytes. */
import type { Figures } from "./protocol";

const TYPES = {
  u1: Uint8Array,
  u2: Uint16Array,
  f4: Float32Array,
  f8: Float64Array,
} as const;

interface Header {
  columns: { name: string; dtype: keyof typeof TYPES; offset: number; length: number }[];
  [fact: string]: unknown;
}

/** Returns the figures of a frame: u32 length of the header (little endian), header, padding, columns. */
export function decodeFrame(data: DataView): Figures {
  const headerBytes = data.getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(data.buffer, data.byteOffset + 4, headerBytes));
  const { columns, ...facts } = JSON.parse(text) as Header;
  const figures: Record<string, unknown> = { ...facts };
  const start = data.byteOffset + Math.ceil((4 + headerBytes) / 8) * 8;
  for (const { name, dtype, offset, length } of columns) {
    const Kind = TYPES[dtype];
    const from = start + offset;
    // A copy: a message's buffer may start anywhere, and typed arrays must be aligned.
    figures[name] = new Kind(data.buffer.slice(from, from + length * Kind.BYTES_PER_ELEMENT) as ArrayBuffer);
  }
  return figures as unknown as Figures;
}
