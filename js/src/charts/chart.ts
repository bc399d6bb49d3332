/** A plotly figure in an element: loaded when first drawn, in the theme's colours, resized with its place, purged at the end. */
import { h } from "../dom";
import { refusal, skeleton } from "../inspector/ui";
import type { Plotly, Source } from "../source";
import { readTheme, type Theme, watchTheme } from "../theme";

export interface Spec {
  data: object[];
  layout: Record<string, unknown>;
}
/** Makes a figure from the theme's colours and the width that there is, in CSS pixels. */
export type Draw = (colours: Theme, width: number) => Spec;

interface PlotElement extends HTMLElement {
  on?(event: string, handler: (event: PlotEvent) => void): void;
}
export interface PlotEvent {
  points: { customdata?: unknown }[];
}

const CONFIG = {
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "", // nothing leaves the page
  displayModeBar: "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d", "zoom2d"],
  toImageButtonOptions: { format: "svg" },
};
const SKELETON_LINES = 5;

export interface Chart {
  readonly element: HTMLElement;
  draw(make: Draw): void;
  dispose(): void;
}

/** Returns a chart; `label` says what it shows, for those who cannot see it. */
export function createChart(
  source: Source,
  label: string,
  height: number,
  click?: (customdata: unknown) => void,
): Chart {
  const plot: PlotElement = h("div", { class: "pe-i-plot", role: "img", "aria-label": label });
  plot.style.height = `${height}px`;
  const veil = h("div", { class: "pe-i-veil" }, skeleton(SKELETON_LINES));
  const element = h("div", { class: "pe-i-chart" }, plot, veil);
  let library: Plotly | null = null;
  let make: Draw | null = null;
  let listening = false;
  let disposed = false;
  let frame = 0;

  const render = async (): Promise<void> => {
    if (!make || disposed || (plot.clientWidth === 0 && sizes)) return; // drawn when it gets a size
    try {
      library ??= await source.plotly();
      if (disposed || !make) return;
      const { data, layout } = make(readTheme(plot), plot.clientWidth);
      // Without a width of its own a figure keeps the one that it was first drawn at.
      const size = plot.clientWidth > 0 ? { width: plot.clientWidth, height } : { height };
      await library.react(plot, data, { ...layout, ...size }, CONFIG);
    } catch (error) {
      if (!disposed) veil.replaceChildren(refusal(error));
      return;
    }
    if (disposed) {
      library.purge(plot);
      return;
    }
    veil.remove();
    if (click && !listening) {
      listening = true;
      plot.on?.("plotly_click", (event) => click(event.points[0]?.customdata));
    }
  };
  const later = (): void => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => void render());
  };
  let width = 0;
  const sizes =
    typeof ResizeObserver === "function"
      ? new ResizeObserver(() => {
          if (plot.clientWidth === width) return;
          width = plot.clientWidth;
          later(); // which labels fit depends on the width, so that it is not only stretched
        })
      : null;
  sizes?.observe(plot);
  const unwatch = watchTheme(later);

  return {
    element,
    draw(next) {
      make = next;
      void render();
    },
    dispose() {
      disposed = true;
      cancelAnimationFrame(frame);
      sizes?.disconnect();
      unwatch();
      library?.purge(plot);
      element.remove();
    },
  };
}
