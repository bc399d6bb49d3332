/** The graph: the model as boxes and wires, with figures, casts and marks on them. */
import { h } from "../dom";
import type { Store } from "../store";
import { watchTheme } from "../theme";
import { badgeOf, hasDetail } from "./boxes";
import { type Rect, toScreen } from "./camera";
import { createCard } from "./card";
import { createCrumbs } from "./crumbs";
import { layerSentence } from "./describe";
import { createKeysDialog } from "./dialog";
import { paint } from "./draw";
import { initialOpen } from "./groups";
import { handleKey } from "./keyboard";
import { type Box, createLayout } from "./layout";
import { createLegend } from "./legend";
import { createList } from "./list";
import { createMenu } from "./menu";
import { createMinimap } from "./minimap";
import { pictureOf } from "./picture";
import { attachPointer } from "./pointer";
import { createPreviewSign } from "./preview";
import { createSearch } from "./search";
import { createToolbar } from "./toolbar";
import { type Key, keyOfGroup, View } from "./view";
import { trueEdgesOf } from "./ways";
import "../style/graph.css";

export interface Graph {
  /** Returns the graph as seen now, as a data: URL of a PNG. */
  picture(): string;
  /** Returns where a layer, input or output is in the window, in pixels; null while a scope hides it. */
  rectOf(node: number): Rect | null;
  /** Returns where the badge of a layer is; null where it has none, or none that can be hit at this scale. */
  badgeOf(layer: number): Rect | null;
  /** Returns where a scope is, folded or not; null while another one hides it. */
  rectOfGroup(group: number): Rect | null;
  dispose(): void;
}

/** Nothing has moved for this long: the picture for notebooks without a kernel may be taken. */
const IDLE_MS = 1500;

export function createGraph(host: HTMLElement, store: Store): Graph {
  // A user's own folding (another view of the same store) is kept.
  if (store.open.size <= 1) store.setOpen(initialOpen(store.model));
  const canvas = h("canvas", {
    class: "pe-graph-canvas",
    role: "img",
    "aria-label": `Graph of ${store.model.structure.name}`,
  });
  const stage = h("div", { class: "pe-graph-stage" }, canvas);
  host.append(stage); // before its colours are read
  const view = new View(stage, canvas, store, createLayout(store.model));
  const list = createList(view);
  const card = createCard(view);
  const menu = createMenu(view, list.focus);
  const keys = createKeysDialog(host, list.focus);
  const search = createSearch(view, list.focus);
  const toolbar = createToolbar(view, search.element, keys.open);
  const legend = createLegend(view);
  const minimap = createMinimap(view);
  const crumbs = createCrumbs(view);
  const sign = createPreviewSign(view);
  stage.before(toolbar.element);
  const openMenu = (x: number, y: number): void => {
    card.hide();
    menu.open(x, y);
  };
  let drawn = store.version;
  const stops = [
    watchTheme(() => view.retheme()),
    watchSize(view),
    attachPointer(view, { focus: list.focus, hover: card.show, menu: openMenu }),
    listenForKeys(view, {
      list: list.element,
      search: search.open,
      keys: keys.open,
      menu: openMenu,
      boxMode: toolbar.boxMode,
      clear: search.clear,
      hideCard: card.hide,
    }),
    store.on("colour", () => view.refresh()),
    store.on(["data", "preview"], () => {
      if (store.version === drawn) return; // a run tells how far it is: nothing of it is on the graph
      drawn = store.version;
      view.refresh();
    }),
    store.on("groups", () => view.relayout()),
    store.on("selection", () => view.selectionChanged()),
    store.on("hover", () => followHover(view)),
    announceEdits(view, list.announce),
    keepPicture(view),
  ];
  let edges: readonly number[][] = [];
  let edgesOf: unknown[] = [];
  view.onPaint(() => {
    const now = [store.selection, view.scene];
    if (now.some((part, at) => part !== edgesOf[at])) {
      edgesOf = now;
      edges = trueEdgesOf(view);
    }
    paint(view, edges);
  });
  const moved = { camera: view.camera };
  view.onPaint(() => {
    // A box that has moved away from under the pointer is no longer what the card is about.
    if (moved.camera !== view.camera) card.hide();
    moved.camera = view.camera;
  });
  return {
    picture: () => pictureOf(canvas),
    rectOf: (node) => inWindow(view, node),
    badgeOf(layer) {
      const box = view.scene.boxes[view.scene.boxOf(layer)];
      if (box?.kind !== "layer" || !hasDetail(view.camera.scale) || view.facts.switchable[layer] !== 1) return null;
      return inWindow(view, layer, badgeOf(box));
    },
    rectOfGroup: (group) => inWindow(view, keyOfGroup(group)),
    dispose() {
      for (const stop of stops) stop();
      for (const part of [list, card, menu, keys, search, toolbar, legend, minimap, crumbs, sign]) part.dispose();
      view.dispose();
      stage.remove();
    },
  };
}

/** Returns where a box, or a part of it given in the world, is in the window; null while a scope hides it. */
function inWindow(view: View, key: Key, part?: Rect): Rect | null {
  const at = view.boxOfKey(key);
  if (at < 0 || view.keyOf(at) !== key) return null;
  const { left, top } = view.canvas.getBoundingClientRect();
  const { scale } = view.camera;
  const { x, y, width, height } = part ?? (view.scene.boxes[at] as Box);
  const from = toScreen(view.camera, x, y);
  return { x: left + from.x, y: top + from.y, width: width * scale, height: height * scale };
}

/** The element may have no size when it is mounted, and gets one later. */
function watchSize(view: View): () => void {
  const measure = (): void => {
    const { clientWidth: width, clientHeight: height } = view.host;
    const ratio = Math.min(3, globalThis.devicePixelRatio || 1);
    if (width === view.size.width && height === view.size.height && ratio === view.ratio) return;
    view.resize({ width, height }, ratio);
  };
  const observer = new ResizeObserver(measure);
  observer.observe(view.host);
  // A zoom of the page changes the ratio, and not always the size.
  window.addEventListener("resize", measure);
  measure();
  return () => {
    observer.disconnect();
    window.removeEventListener("resize", measure);
  };
}

interface KeyTargets {
  list: HTMLElement;
  search(): void;
  keys(): void;
  menu(x: number, y: number): void;
  boxMode(): void;
  clear(): void;
  hideCard(): void;
}

function listenForKeys(view: View, targets: KeyTargets): () => void {
  const menu = (): void => {
    const at = view.boxOfKey(view.cursor);
    const place = at >= 0 ? view.onScreen(at) : { x: 20, y: 20, width: 0, height: 0 };
    targets.menu(place.x + Math.min(40, place.width / 2), place.y + Math.min(40, place.height));
  };
  const parts = { search: targets.search, keys: targets.keys, boxMode: targets.boxMode, clear: targets.clear, menu };
  const key = (event: KeyboardEvent): void => {
    targets.hideCard();
    if (!handleKey(view, parts, event)) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const redraw = (): void => view.invalidate(); // the focus ring
  targets.list.addEventListener("keydown", key);
  targets.list.addEventListener("focus", redraw);
  targets.list.addEventListener("blur", redraw);
  return () => {
    targets.list.removeEventListener("keydown", key);
    targets.list.removeEventListener("focus", redraw);
    targets.list.removeEventListener("blur", redraw);
  };
}

/** Shows what another part (the table) points at. */
function followHover(view: View): void {
  const at = view.store.hovered >= 0 ? view.scene.boxOf(view.store.hovered) : -1;
  const own = view.scene.boxes[view.hovered];
  if (at === view.hovered || (at < 0 && own && own.kind !== "layer")) return;
  view.hovered = at;
  view.invalidate();
}

/** Says what became of the layer that the keyboard stands on, or of how many others. */
function announceEdits(view: View, announce: (text: string) => void): () => void {
  const { store } = view;
  let said = "";
  return store.on("data", () => {
    const { selection, focus } = store;
    const single = selection.size === 1 ? [...selection][0] : focus >= 0 ? focus : undefined;
    const low = store.state.headline.low_share.text;
    const text =
      selection.size > 1
        ? `${selection.size} layers selected, ${[...selection].filter((layer) => store.runsLow(layer)).length} in ${store.mixed ? "a low format" : store.state.format}. ${low} in all.`
        : single !== undefined
          ? layerSentence(store, single)
          : `${low} of the layers in ${store.mixed ? "low formats" : store.state.format}`;
    // The first state is no news; the figures that follow a toggle are.
    if (text !== said && (said !== "" || store.stale)) announce(text);
    said = text;
  });
}

/** Keeps a picture of the graph in the notebook, once for each plan, after the figures have settled. */
function keepPicture(view: View): () => void {
  const { store } = view;
  if (store.source.readOnly) return () => undefined;
  let sent = -1;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const take = (): void => {
    timer = undefined;
    const { revision, run } = store.state;
    if (store.stale || store.preview || run.state === "running" || revision === sent || view.size.width === 0) return;
    const png = pictureOf(view.canvas);
    if (!png) return;
    sent = revision;
    // A host without a place for pictures may refuse: the panel works without.
    store.source.request("picture", { png }).catch(() => undefined);
  };
  const wait = (): void => {
    if (store.state.revision === sent) return;
    clearTimeout(timer);
    timer = setTimeout(take, IDLE_MS);
  };
  view.onPaint(wait);
  return () => clearTimeout(timer);
}
