/** A part of the inspector: shown while it is up, told when something changed, disposed of at the end. */
import type { Topic } from "../store";

export interface Part {
  readonly element: HTMLElement;
  /** Shows what the store holds now; called when the part comes up, and after each change while it is. */
  update(topic?: Topic): void;
  dispose(): void;
}
