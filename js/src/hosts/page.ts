/** The panel in the report: read-only, on data that the page carries; it asks nobody. */
import { h } from "../dom";
import { decodeFrame } from "../frame";
import { mountPanel, type Panel } from "../panel";
import type { Kind, LayerDetails, LayerValues, PanelState, Requests, Structure } from "../protocol";
import { type Plotly, RequestError, type Source } from "../source";
import type { Tab } from "../store";
import "../style/page.css";
import "../style/panel.css";

/** What a report carries of an exploration; explorer.scene writes it. */
export interface Scene {
  structure: Structure;
  state: PanelState;
  figures: string; // the frame, in base64
  details: (LayerDetails | null)[]; // by layer; shorter, or empty, where a model is too large for them
  values: Record<string, LayerValues>; // by layer: histograms of exact values
}

const READ_ONLY = "This is a report: nothing can be changed or run in it.";
const TRY = "Open the model with explorer.open(…) in a notebook to try other plans.";

/** Returns the scene of its JSON, which may stand in it as `{"gzip": "base64…"}`. */
export async function readScene(text: string): Promise<Scene> {
  const read = JSON.parse(text) as Scene | { gzip: string };
  if (!("gzip" in read)) return read;
  const packed = new Response(bytesOf(read.gzip)).body?.pipeThrough(new DecompressionStream("gzip"));
  return (await new Response(packed).json()) as Scene;
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** Returns a scene as a source that answers what it knows, and refuses the rest in words. */
export function pageSource(scene: Scene): Source {
  const figures = decodeFrame(new DataView(bytesOf(scene.figures).buffer));
  const answers: { [K in Kind]?: (ask: Requests[K][0]) => Requests[K][1] } = {
    layer: ({ layer }) => known(scene.details[layer], "attributes, tensors and weights"),
    values: ({ layer }) => known(scene.values[layer], "a histogram of the values"),
    picture: () => ({}), // kept by notebooks only
  };
  return {
    readOnly: true,
    readOnlyBecause: `${READ_ONLY} ${TRY}`,
    // The report has a table of its own, and tells how it is made again; a single plan without a front is no trade-off.
    hides: hiddenTabs(scene.state),
    structure: () => scene.structure,
    state: () => scene.state,
    figures: () => figures,
    onChange: () => () => undefined,
    async request<K extends Kind>(kind: K, ask: Requests[K][0]): Promise<Requests[K][1]> {
      const answer = answers[kind];
      if (!answer) throw new RequestError(READ_ONLY, "", TRY);
      return answer(ask);
    },
    async plotly(): Promise<Plotly> {
      const found = (globalThis as { Plotly?: Plotly }).Plotly;
      if (!found) throw new RequestError("The page's charts did not load.", "", "Reload the page.");
      return found;
    },
    dispose: () => undefined,
  };
}

function hiddenTabs(state: PanelState): Tab[] {
  const tabs: Tab[] = ["table", "export"];
  if (state.tried.length < 2 && state.search.points.length === 0) tabs.push("tradeoff");
  if (state.findings.length === 0) tabs.push("findings");
  return tabs;
}

function known<T>(found: T | null | undefined, what: string): T {
  if (found) return found;
  throw new RequestError(
    `This report does not carry ${what} of this layer.`,
    "",
    "A notebook shows them: explorer.open(…).",
  );
}

/** Mounts the panel into its place in the page. */
export function mountPage(place: HTMLElement, scene: Scene): Panel {
  const stop = new AbortController();
  const picture = h("img", { class: "pe-picture", alt: "The model's graph", hidden: true });
  place.replaceChildren(picture);
  const panel = mountPanel(place, pageSource(scene));
  createFullScreen(place, stop.signal);
  // A click on a chart opens its layer in the table; the graph shows it too. A row of the table has a button for that.
  const shown = (event: Event): void => panel.store.reveal((event as CustomEvent<number>).detail);
  for (const name of ["open-layer", "show-layer"]) document.addEventListener(name, shown, { signal: stop.signal });
  addEventListener("beforeprint", () => takePicture(place, picture), { signal: stop.signal });
  return {
    store: panel.store,
    graph: panel.graph,
    dispose() {
      stop.abort();
      panel.dispose();
      place.replaceChildren();
      place.removeAttribute("class");
      document.documentElement.classList.remove("pe-behind");
    },
  };
}

/** Adds the button that lets the panel fill the window, and the screen where the browser allows it. */
function createFullScreen(place: HTMLElement, signal: AbortSignal): void {
  const words = h("span", {});
  const button = h("button", { type: "button", class: "pe-full-button" }, words);
  const set = (full: boolean): void => {
    place.classList.toggle("pe-full", full);
    document.documentElement.classList.toggle("pe-behind", full); // the page behind does not scroll
    words.textContent = full ? "Back to the report" : "Full screen";
    button.setAttribute("aria-pressed", String(full));
  };
  const leave = (): void => {
    set(false);
    if (document.fullscreenElement) void document.exitFullscreen();
    button.focus({ preventScroll: true });
  };
  button.addEventListener("click", () => {
    if (place.classList.contains("pe-full")) {
      leave();
      return;
    }
    set(true);
    // Refused in a frame, say: the panel fills the window all the same.
    place.requestFullscreen?.().catch(() => undefined);
  });
  document.addEventListener("fullscreenchange", () => !document.fullscreenElement && set(false), { signal });
  place.addEventListener(
    "keydown",
    (event) => {
      const open = event.defaultPrevented || (event.target as Element).closest(".pe-graph, [role=dialog]");
      if (event.key === "Escape" && !open && place.classList.contains("pe-full")) leave();
    },
    { signal },
  );
  set(false);
  place.append(button);
}

/** Puts a picture of the graph in the place of the panel, for paper. */
function takePicture(place: HTMLElement, picture: HTMLImageElement): void {
  const canvas = place.querySelector<HTMLCanvasElement>(".pe-graph canvas");
  if (!canvas || canvas.width === 0 || canvas.height === 0) return;
  picture.src = canvas.toDataURL("image/png");
  picture.hidden = false;
  picture.classList.toggle("pe-dark", matchMedia("(prefers-color-scheme: dark)").matches);
}

/** Mounts the panel of the page around us, or says in words why there is none. */
export async function start(): Promise<void> {
  const place = document.getElementById("pe-root");
  const data = document.getElementById("pe-scene");
  if (!place || !data) return;
  try {
    mountPage(place, await readScene(data.textContent ?? ""));
  } catch (error) {
    const why = typeof DecompressionStream === "undefined" ? "This browser is too old for it." : String(error);
    place.replaceChildren(h("p", { class: "pe-failed", role: "alert" }, `The graph cannot be shown. ${why}`));
  }
}

void start();
