/** The edge between graph and inspector: dragged, moved by keys, folded away; the width is remembered. */
import { h } from "../dom";
import { icon } from "./ui";

const KEY = "precision-explorer.inspector";
const WIDTH = { usual: 400, least: 280, step: 24 }; // CSS pixels
const GRAPH_LEAST = 220; // what the graph keeps
const SHARE = 0.42; // of the panel at most, where nobody has chosen a width

interface Memory {
  width: number | null;
  folded: boolean;
}

/** Returns what was remembered; a browser may refuse storage, and may hold anything. */
function recall(): Memory {
  try {
    const { width, folded } = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Memory>;
    return { width: Number.isFinite(width) ? Number(width) : null, folded: folded === true };
  } catch {
    return { width: null, folded: false };
  }
}

function remember(memory: Memory): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(memory));
  } catch {
    // Private windows and sandboxed frames have no storage: the width then holds for this panel only.
  }
}

export function createSplitter(host: HTMLElement): { unfold(): void; dispose(): void } {
  const memory = recall();
  const bar = h("div", {
    class: "pe-i-splitter",
    role: "separator",
    tabindex: 0,
    "aria-orientation": "vertical",
    "aria-label": "Width of the inspector",
    title: "Drag to resize, double-click to reset",
  });
  const fold = h(
    "button",
    { type: "button", class: "pe-i-fold", onclick: () => setFolded(!memory.folded) },
    icon("fold"),
  );
  host.prepend(bar, fold);

  const room = (): number => host.parentElement?.clientWidth || Number.POSITIVE_INFINITY;
  const most = (): number => Math.max(WIDTH.least, room() - GRAPH_LEAST);
  const wanted = (): number => memory.width ?? Math.min(WIDTH.usual, SHARE * room());
  const apply = (): void => {
    const width = Math.round(Math.min(most(), Math.max(WIDTH.least, wanted())));
    host.classList.toggle("pe-i-folded", memory.folded);
    host.style.width = memory.folded ? "" : `${width}px`;
    bar.hidden = memory.folded;
    bar.setAttribute("aria-valuenow", String(width));
    bar.setAttribute("aria-valuemin", String(WIDTH.least));
    if (Number.isFinite(most())) bar.setAttribute("aria-valuemax", String(most()));
    fold.setAttribute("aria-expanded", String(!memory.folded));
    fold.title = memory.folded ? "Show the inspector" : "Fold the inspector away";
    fold.setAttribute("aria-label", fold.title);
  };
  const setWidth = (width: number): void => {
    memory.width = Math.min(most(), Math.max(WIDTH.least, width));
    apply();
  };
  const setFolded = (folded: boolean): void => {
    memory.folded = folded;
    apply();
    remember(memory);
  };

  let grip: { x: number; width: number } | null = null;
  const down = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    grip = { x: event.clientX, width: host.getBoundingClientRect().width };
    bar.setPointerCapture?.(event.pointerId);
    event.preventDefault(); // a drag selects no text
    bar.focus();
  };
  const move = (event: PointerEvent): void => {
    if (grip) setWidth(grip.width + grip.x - event.clientX);
  };
  const up = (): void => {
    if (grip) remember(memory);
    grip = null;
  };
  const reset = (): void => {
    memory.width = null;
    apply();
    remember(memory);
  };
  const key = (event: KeyboardEvent): void => {
    const steps: Record<string, () => number> = {
      ArrowLeft: () => wanted() + WIDTH.step,
      ArrowRight: () => wanted() - WIDTH.step,
      Home: () => WIDTH.least,
      End: () => most(),
    };
    const step = steps[event.key];
    if (event.key === "Enter") setFolded(true);
    else if (step) {
      setWidth(Number.isFinite(step()) ? step() : wanted());
      remember(memory);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  bar.addEventListener("pointerdown", down);
  bar.addEventListener("pointermove", move);
  bar.addEventListener("pointerup", up);
  bar.addEventListener("pointercancel", up);
  bar.addEventListener("dblclick", reset);
  bar.addEventListener("keydown", key);
  const sizes = typeof ResizeObserver === "function" && host.parentElement ? new ResizeObserver(apply) : null;
  if (host.parentElement) sizes?.observe(host.parentElement);
  apply();
  return {
    unfold: () => {
      if (memory.folded) setFolded(false);
    },
    dispose() {
      sizes?.disconnect();
      bar.remove();
      fold.remove();
    },
  };
}
