/** A plotly that draws nothing and remembers everything. */
import type { Plotly } from "../source";

export interface Drawing {
  element: HTMLElement;
  data: Record<string, unknown>[];
  layout: Record<string, unknown>;
  config: Record<string, unknown>;
}

export class PlotlyRecorder implements Plotly {
  readonly drawn: Drawing[] = [];
  readonly alive = new Set<HTMLElement>();
  private readonly clicks = new Map<HTMLElement, (event: unknown) => void>();

  async react(element: HTMLElement, data: object[], layout: object, config: object): Promise<void> {
    this.drawn.push({ element, data, layout, config } as Drawing);
    this.alive.add(element);
    Object.assign(element, { on: (_: string, handler: (event: unknown) => void) => this.clicks.set(element, handler) });
  }

  purge(element: HTMLElement): void {
    this.alive.delete(element);
    this.clicks.delete(element);
  }

  Plots = { resize: (): void => undefined };

  /** Clicks a point of the last figure. */
  click(customdata: unknown): void {
    const last = this.drawn.at(-1);
    if (last) this.clicks.get(last.element)?.({ points: [{ customdata }] });
  }
}
