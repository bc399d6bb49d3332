/** A frame that Python wrote (tests/scene/test_figures.py) reads as it was meant. */
import { describe, expect, it } from "vitest";
import { decodeFrame } from "./frame";
import fixture from "./frame.fixture.json";

const bytes = Uint8Array.from(atob(fixture.frame), (letter) => letter.charCodeAt(0));

/** Returns the frame in a buffer where it starts at `offset`, as a message may put it. */
function viewAt(offset: number): DataView {
  const whole = new Uint8Array(offset + bytes.length + 3);
  whole.set(bytes, offset);
  return new DataView(whole.buffer, offset, bytes.length);
}

describe("a frame written by Python", () => {
  it.each([0, 1, 4, 7])("reads alike wherever its buffer starts: %i", (offset) => {
    const figures = decodeFrame(viewAt(offset));
    expect(figures).toMatchObject(fixture.facts);
    expect([...figures.format]).toEqual([2, 1, 0]);
    expect([...figures.reason]).toEqual([0, 65535, 1]);
    expect([...figures.local_sqnr_db]).toEqual([41.5, Number.NEGATIVE_INFINITY, Number.NaN]);
    expect([...figures.overflow]).toEqual([0, 2 ** 40, Number.NaN]);
    expect([...figures.cast]).toEqual([0, 1, 2, 0, 0]);
    expect(figures.sensitivity_db).toHaveLength(0);
    expect(figures.local_sqnr_db).toBeInstanceOf(Float32Array);
    expect(figures.overflow).toBeInstanceOf(Float64Array);
  });

  it("does not keep the message alive: columns are copies", () => {
    const view = viewAt(8);
    const figures = decodeFrame(view);
    new Uint8Array(view.buffer).fill(255);
    expect([...figures.format]).toEqual([2, 1, 0]);
  });
});
