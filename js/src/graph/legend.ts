/** What colour and marks mean, and how the figures came to be; folds away. */
import { formatColour } from "../colours";
import { h } from "../dom";
import { ramp } from "../ramps";
import { mix } from "../theme";
import { brief } from "./describe";
import { icon } from "./icons";
import { drawBroken, drawCast, drawLock, drawOverruled } from "./marks";
import type { View } from "./view";
import { bitsOf } from "./wires";

const MARK_PX = 18;
const ENTRIES = 8;

/** In a view smaller than this the legend would lie over what it explains: it is folded, until the user says otherwise. */
const ROOM = { width: 640, height: 460 };

export interface Legend {
  dispose(): void;
}

export function createLegend(view: View): Legend {
  const body = h("div", { class: "pe-graph-legend-body" });
  const title = h("span", {});
  const button = h(
    "button",
    { type: "button", "aria-expanded": "true", title: "Fold the legend" },
    title,
    icon("down"),
  );
  const element = h("section", { class: "pe-graph-legend", "aria-label": "Legend" }, button, body);
  const unfold = (open: boolean): void => {
    button.setAttribute("aria-expanded", String(open));
    button.title = open ? "Fold the legend" : "Unfold the legend";
    body.hidden = !open;
  };
  let chosen = false;
  button.addEventListener("click", () => {
    chosen = true;
    unfold(button.getAttribute("aria-expanded") !== "true");
  });
  view.host.append(element);
  let version = -1;
  const draw = (): void => {
    if (view.version === version) return;
    version = view.version;
    const { scale, old } = view.facts;
    title.textContent = view.store.preview ? `${scale.label} (preview)` : scale.label;
    element.classList.toggle("pe-stale", old);
    body.replaceChildren(...content(view));
  };
  view.onChange(draw);
  draw();
  let size = view.size;
  view.onPaint(() => {
    if (view.size === size || chosen) return;
    size = view.size;
    unfold(size.width >= ROOM.width && size.height >= ROOM.height);
  });
  return { dispose: () => element.remove() };
}

function content(view: View): (HTMLElement | string)[] {
  const { scale, old } = view.facts;
  const parts: HTMLElement[] = [];
  if (scale.missing) parts.push(h("p", { class: "pe-graph-note" }, scale.missing));
  else if (scale.kind === "sequential") parts.push(rampOf(view));
  const entries = scale.missing ? [] : scale.entries.slice(0, ENTRIES);
  if (entries.length > 0) {
    const list = entries.map((entry) =>
      h(
        "li",
        { title: entry.text },
        swatch(entry.colour),
        h("span", {}, brief(entry.text, 90)),
        h("b", {}, `${entry.count}`),
      ),
    );
    parts.push(h("ul", { class: "pe-graph-entries" }, ...list));
  }
  if (old && !scale.missing) {
    const why =
      scale.quantity === "latency"
        ? "Greyed: not measured yet; this is what is known until then."
        : "Greyed: errors are of the plan before the last change.";
    parts.push(h("p", { class: "pe-graph-note" }, why));
  }
  parts.push(marks(view));
  if (scale.provenance && !scale.missing) {
    parts.push(h("p", { class: "pe-graph-foot" }, brief(scale.provenance, 200)));
  }
  return parts;
}

function rampOf(view: View): HTMLElement {
  const { scale } = view.facts;
  const colours = ramp(scale.quantity, view.theme.dark);
  const bar = h("div", { class: "pe-graph-ramp" });
  const stops = Array.from({ length: 17 }, (_, at) => colours[Math.round((at / 16) * (colours.length - 1))]);
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const ticks = scale.ticks.map(({ at, text }, place) => {
    const tick = h("span", {}, text);
    tick.style.left = `${100 * at}%`;
    tick.style.transform = `translateX(${place === 0 ? "0" : place === scale.ticks.length - 1 ? "-100%" : "-50%"})`;
    return tick;
  });
  const { caption } = scale;
  const scaleBar = h("div", { class: "pe-graph-ticks" }, ...ticks);
  return h("div", { role: "img", "aria-label": `${scale.label}: ${caption}` }, bar, scaleBar, h("p", {}, caption));
}

function swatch(colour: string): HTMLElement {
  const element = h("i", { class: "pe-graph-swatch" });
  element.style.background = colour;
  return element;
}

type Draw = (context: CanvasRenderingContext2D) => void;

/** The marks that stand on this graph now, drawn by the code that draws them there. */
function marks(view: View): HTMLElement {
  const { theme, store, facts } = view;
  const { format } = store.state;
  const middle = MARK_PX / 2;
  const { cast } = store.figures;
  const broken: (which: "now" | "alone") => Draw = (which) => (context) =>
    drawBroken(context, theme, which, middle, middle, 7.5, facts.stale);
  const rows: [boolean, string, Draw][] = [
    [facts.broken.includes("now"), "inf/NaN under this plan", broken("now")],
    [facts.broken.includes("alone"), `inf/NaN if it alone ran in ${format}`, broken("alone")],
    [facts.locked.includes(1), "blacklisted: kept in fp32", (context) => drawLock(context, theme.ink, 4, 2, 13)],
    [!store.preview && cast.includes(1), `cast to ${format}`, castTo(view, format)],
    [!store.preview && cast.includes(3), "quantised to int8", castTo(view, "int8")],
    [!store.preview && cast.includes(2), "cast to fp32", castTo(view, "fp32")],
    [view.kernels.length > 0, "one kernel computes these layers", kernelFrame(view)],
    [facts.overruled.includes(1), "measured in another format than decided", overruled(view)],
    [facts.switchable.includes(0), "dashed: cannot be switched", dashed(theme.ink)],
    [store.model.structure.groups.label.length > 1, `bar: share of a scope in ${lowFormats(view)}`, shareBar(view)],
  ];
  return h(
    "ul",
    { class: "pe-graph-marks" },
    ...rows
      .filter(([present]) => present)
      .map(([, text, draw]) => h("li", {}, markCanvas(view, draw), h("span", {}, text))),
  );
}

function castTo({ theme }: View, format: string): Draw {
  return (context) => {
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = `600 8px ${theme.font}`;
    drawCast(context, theme, bitsOf(format), formatColour(format, theme.dark), MARK_PX / 2, MARK_PX / 2, 8.2);
  };
}

function lowFormats({ store }: View): string {
  return store.mixed ? `${store.state.format} and int8` : store.state.format;
}

function kernelFrame({ theme }: View): Draw {
  return (context) => {
    context.beginPath();
    context.roundRect(2, 3, MARK_PX - 4, MARK_PX - 6, 4);
    context.fillStyle = mix(theme.paper, theme.accent, theme.dark ? 0.24 : 0.13);
    context.fill();
    context.lineWidth = 1.4;
    context.strokeStyle = mix(theme.paper, theme.accent, 0.5);
    context.stroke();
  };
}

function overruled({ theme }: View): Draw {
  return (context) => drawOverruled(context, theme, MARK_PX / 2, MARK_PX / 2, 7);
}

function dashed(colour: string): Draw {
  return (context) => {
    context.setLineDash([3, 2]);
    context.lineWidth = 1.3;
    context.strokeStyle = colour;
    context.strokeRect(2, 4, MARK_PX - 4, MARK_PX - 8);
  };
}

function shareBar({ theme, store }: View): Draw {
  return (context) => {
    context.fillStyle = formatColour(store.state.format, theme.dark);
    context.fillRect(1, 6, 10, 5);
    if (store.mixed) {
      context.fillStyle = formatColour("int8", theme.dark);
      context.fillRect(7, 6, 4, 5);
    }
    context.fillStyle = formatColour("fp32", theme.dark);
    context.fillRect(11, 6, 6, 5);
  };
}

function markCanvas(view: View, draw: Draw): HTMLCanvasElement {
  const ratio = Math.max(1, view.ratio);
  const canvas = h("canvas", { width: MARK_PX * ratio, height: MARK_PX * ratio, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  if (context) {
    context.scale(ratio, ratio);
    draw(context);
  }
  return canvas;
}
