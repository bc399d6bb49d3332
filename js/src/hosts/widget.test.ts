// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import fixture from "../frame.fixture.json";
import type { BudgetPreview } from "../protocol";
import { transformer } from "../testing/fixture";
import { widgetSource } from "./widget";

type Handler = (...args: never[]) => void;

/** A notebook's side of the widget: remembers what is sent, and says what a test tells it to. */
class Kernel {
  readonly sent: { id: number; kind: string }[] = [];
  private readonly handlers = new Map<string, Handler>();
  private readonly traits: Record<string, unknown> = {
    _structure: new DataView(new TextEncoder().encode(JSON.stringify(transformer(1))).buffer),
    _figures: new DataView(Uint8Array.from(atob(fixture.frame), (letter) => letter.charCodeAt(0)).buffer),
    _state: {},
  };
  get = (name: string): unknown => this.traits[name];
  on = (event: string, handler: Handler): void => void this.handlers.set(event, handler);
  off = (event: string): void => void this.handlers.delete(event);
  send = (message: unknown): void => void this.sent.push(message as { id: number; kind: string });
  answer(result: object, buffers: DataView[]): void {
    this.handlers.get("msg:custom")?.(...([{ id: this.sent.at(-1)?.id, result }, buffers] as never[]));
  }
}

describe("the widget", () => {
  it("reads bytes and floats out of the buffers of an answer", async () => {
    const kernel = new Kernel();
    const source = widgetSource(kernel);
    const asked = source.request("budget", { error: 1e-3 });
    expect(kernel.sent[0]).toMatchObject({ kind: "budget", error: 1e-3 });
    const floats = Float32Array.of(1.5, -2);
    const result = {
      format: { $buffer: 0, dtype: "u1" },
      more: [{ $buffer: 1, dtype: "f4" }],
      predicted_error: "inf",
    };
    const padded = Uint8Array.of(9, 2, 1, 2);
    kernel.answer(result, [new DataView(padded.buffer, 1, 3), new DataView(floats.buffer)]);
    const answer = (await asked) as BudgetPreview & { more: Float32Array[] };
    expect(answer.format).toEqual(Uint8Array.of(2, 1, 2));
    expect(answer.more[0]).toEqual(floats);
    expect(answer.predicted_error).toBe("inf");
    source.dispose();
  });
});
