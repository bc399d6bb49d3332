/** The budget: how much output error may be spent. While it is dragged the graph shows what the front gives for it. */
import { h } from "../dom";
import { decibels, duration, errorFigure, errorWithDb, fixed, float, share } from "../inspector/numbers";
import type { Store } from "../store";
import { setText } from "./controls";

const DIGITS = 2; // of a budget: what is asked for is what is shown
const KEYS_REST_MS = 800; // after the last key the budget is taken
/** Decibels that a key moves the budget by, towards more error (right) or less. */
const STEPS: Record<string, number> = {
  ArrowRight: 1,
  ArrowUp: 1,
  ArrowLeft: -1,
  ArrowDown: -1,
  PageUp: 6,
  PageDown: -6,
  Home: Number.NEGATIVE_INFINITY,
  End: Number.POSITIVE_INFINITY,
};

export interface Budget {
  element: HTMLElement;
  update(): void;
  dispose(): void;
}

/** Returns the slider. It is there once there is a front, and only where plans can be set. */
export function createBudget(store: Store): Budget {
  const slider = h("input", {
    type: "range",
    class: "pe-budget-slider",
    step: "any",
    "aria-label": "Error budget: relative error of the worst output",
    title: "The most exact plan is left, the fastest right. Arrow keys: 1 dB, page keys: 6 dB, Escape goes back.",
  });
  const wanted = h("span", { class: "pe-budget-wanted" });
  const given = h("span", { class: "pe-budget-given" });
  const element = h(
    "div",
    { class: "pe-bar-row pe-budget", role: "group", "aria-label": "Error budget", hidden: true },
    h("span", { class: "pe-bar-label" }, "Error budget"),
    slider,
    wanted,
    given,
  );
  const asking = createAsking(store);
  let held: number | null = null; // the budget under the user's hand
  let keyed = false; // the hand is on the keyboard
  let dropped = false; // Escape was pressed, and the pointer is still down
  let timer: ReturnType<typeof setTimeout> | undefined;

  const bounds = (): { low: number; high: number } => store.state.search.budget ?? { low: 1e-6, high: 1 };
  /** Returns a budget of the scale, whose unit is dB of error (1 is 0, 1e-3 is -60). */
  const errorAt = (place: number): number => {
    const { low, high } = bounds();
    return Math.min(high, Math.max(low, Number((10 ** (place / 20)).toPrecision(DIGITS))));
  };
  const placeOf = (error: number): number => -decibels(error);

  const hold = (error: number): void => {
    held = error;
    asking.ask(error);
    update();
  };
  const letGo = (): void => {
    clearTimeout(timer);
    timer = undefined;
    const error = held;
    held = null;
    if (error === null) return;
    // The newest preview may still be on its way: it is shown while the plan is run.
    void store.take({ error }).then(() => held === null && asking.stop());
    update();
  };
  const cancel = (): void => {
    clearTimeout(timer);
    timer = undefined;
    held = null;
    asking.stop();
    store.setPreview(null);
    update();
  };

  const press = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && held !== null) {
      dropped = !keyed;
      cancel();
    } else if (event.key === "Enter" && held !== null) letGo();
    else if (STEPS[event.key] !== undefined) {
      keyed = true;
      const now = placeOf(held ?? restingError(store) ?? bounds().low);
      const to = Math.round(now) + (STEPS[event.key] as number);
      const [low, high] = [placeOf(bounds().low), placeOf(bounds().high)];
      hold(errorAt(Math.min(high, Math.max(low, to))));
      clearTimeout(timer);
      timer = setTimeout(letGo, KEYS_REST_MS);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  slider.addEventListener("keydown", press);
  let drag: AbortController | null = null;
  const released = (): void => {
    drag?.abort();
    if (!dropped) letGo();
    dropped = false;
    update();
  };
  slider.addEventListener("pointerdown", () => {
    keyed = false;
    dropped = false;
    clearTimeout(timer);
    // A slider whose value is set while it is dragged may end without a change event, and outside of itself.
    drag?.abort();
    drag = new AbortController();
    const options = { capture: true, signal: drag.signal };
    document.addEventListener("pointerup", released, options);
    document.addEventListener("pointercancel", released, options);
  });
  slider.addEventListener("input", () => {
    if (!dropped) hold(errorAt(slider.valueAsNumber));
    else update();
  });
  slider.addEventListener("blur", () => {
    if (held !== null && keyed) letGo();
  });

  const update = (): void => {
    const { search } = store.state;
    element.hidden = search.budget === null || store.source.readOnly;
    if (element.hidden) return;
    const { low, high } = bounds();
    slider.min = String(placeOf(low));
    slider.max = String(placeOf(high));
    slider.disabled = search.stale !== "";
    const error = held ?? (store.taking || restingError(store));
    slider.value = String(placeOf(Math.min(high, Math.max(low, error ?? low))));
    slider.style.setProperty("--pe-budget-at", `${100 * position(error ?? low, low, high)}%`);
    const resting = held === null && store.taking === null && !(float(search.chosen) > 0);
    // At rest on a plan that was not taken from the front this is no budget: it is where that plan stands.
    setText(wanted, error === null ? "" : `${resting ? "now" : "error ≤"} ${errorWithDb(error)}`);
    wanted.classList.toggle("pe-some", !resting);
    const gives = givenWords(store, held !== null);
    setText(given, gives);
    given.title = gives;
    given.classList.toggle("pe-some", store.preview !== null);
    slider.setAttribute("aria-valuetext", ariaWords(error, gives));
  };
  const stop = store.on("preview", update);
  return {
    element,
    update,
    dispose() {
      stop();
      clearTimeout(timer);
      asking.stop();
      drag?.abort();
    },
  };
}

/** Asks Python what budgets give, one at a time: an answer that comes while the hand has moved on asks for the newest. */
function createAsking(store: Store): { ask(error: number): void; stop(): void } {
  let newest: number | null = null;
  let busy = false;
  const next = async (): Promise<void> => {
    if (busy) return;
    busy = true;
    while (newest !== null) {
      const error: number = newest;
      try {
        const answer = await store.source.request("budget", { error });
        if (newest === null) break; // cancelled, or run meanwhile
        store.setPreview({ ...answer, names: store.figures.formats, budget: error, taken: store.taking === error });
      } catch (refused) {
        if (newest !== null) store.refuse(refused);
        newest = null;
      }
      if (newest === error) break;
    }
    busy = false;
  };
  return {
    ask(error) {
      newest = error;
      void next();
    },
    stop() {
      newest = null;
    },
  };
}

/** Returns the budget at which the slider rests: the one that was taken, else the error of the plan that is set. */
function restingError(store: Store): number | null {
  const chosen = float(store.state.search.chosen);
  if (chosen > 0) return chosen;
  const current = store.state.search.points.find((point) => point.current);
  const db = float(store.state.headline.output_error?.value);
  const found = [float(current?.error), float(current?.predicted_error), 10 ** (-db / 20)];
  return found.find((error) => error > 0 && Number.isFinite(error)) ?? null;
}

function givenWords(store: Store, held: boolean): string {
  const { preview } = store;
  const { search } = store.state;
  if (search.stale) return `search again (tab Trade-off): ${search.stale}`;
  if (!preview) {
    if (store.taking !== null) return "being found and run";
    if (held) return "asking what it gives";
    return float(search.chosen) > 0 ? "the fastest plan within it is set" : "drag: the fastest plan within it";
  }
  const latency = float(preview.latency_us);
  const parts = [
    `error ${errorFigure(float(preview.predicted_error))}`,
    !Number.isNaN(latency) && duration(latency),
    `${share(preview.low_share)} in ${store.state.format}`,
  ].filter(Boolean);
  return `${preview.taken ? "being run" : "predicted"}: ${parts.join(", ")}`;
}

function ariaWords(error: number | null, gives: string): string {
  if (error === null) return gives;
  return `error at most ${errorFigure(error)}, ${fixed(decibels(error), 0)} decibels; ${gives}`;
}

function position(error: number, low: number, high: number): number {
  const span = Math.log(high / low) || 1;
  return Math.min(1, Math.max(0, Math.log(error / low) / span));
}
