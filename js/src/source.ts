/** What a host (notebook or page) gives the view. */
import type { Figures, Kind, PanelState, Requests, Structure } from "./protocol";
import type { Tab } from "./store";

export interface Source {
  /** Nothing can be changed or run: a report, or a notebook whose kernel has gone. May change; `onChange` tells. */
  readonly readOnly: boolean;
  /** Why nothing can be changed and what to do, as a sentence; "" when it can. */
  readonly readOnlyBecause: string;
  /** Tabs of the inspector that the host has in another form around the panel. */
  readonly hides?: readonly Tab[];
  structure(): Structure;
  state(): PanelState;
  figures(): Figures;
  /** Calls back when state or figures were replaced; returns how to stop that. */
  onChange(changed: () => void): () => void;
  /** Asks Python; rejects with a RequestError, which is ready to be shown. */
  request<K extends Kind>(kind: K, ask: Requests[K][0]): Promise<Requests[K][1]>;
  /** Loads plotly.js at the first call. */
  plotly(): Promise<Plotly>;
  dispose(): void;
}

/** The part of plotly.js that the view uses. */
export interface Plotly {
  react(element: HTMLElement, data: object[], layout: object, config?: object): Promise<unknown>;
  purge(element: HTMLElement): void;
  Plots: { resize(element: HTMLElement): void };
}

/** A refusal, in words: what happened, why it matters, what to do. */
export class RequestError extends Error {
  constructor(
    readonly what: string,
    readonly why = "",
    readonly fix = "",
  ) {
    super(what);
  }
}
