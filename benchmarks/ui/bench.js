// The page's side of the benchmark: a notebook's host without a notebook, and clocks. It draws nothing itself.
import panelModule from "./panel.js";

const ANSWER_MS = 300; // a kernel that takes so long must not keep a click from being seen
const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const view = (array) => new DataView(array.buffer, array.byteOffset, array.byteLength);
let drawn = 0; // boxes, and everything else that has a path
let panel = null;

for (const name of ["roundRect", "rect", "fillRect"]) {
  const real = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function (...all) {
    if (name !== "fillRect" || this.canvas.className === "pe-graph-canvas") drawn += name === "fillRect" ? 0.001 : 1;
    return real.apply(this, all);
  };
}

/** Resolves with the time when the frame that is about to be drawn has been handed over by the page. */
const afterFrame = () =>
  new Promise((done) => {
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now());
      channel.port2.postMessage(0);
    });
  });

/** What anywidget would hand over: traits that hold the bytes, and a kernel that answers late. */
function host(scene) {
  const traits = { _structure: view(scene.structure), _figures: view(scene.figures), _state: scene.state };
  const handlers = new Map();
  return {
    get: (name) => traits[name],
    on: (event, handler) => handlers.set(event, handler),
    off: (event) => handlers.delete(event),
    send({ id, kind }) {
      if (kind !== "edit") return;
      setTimeout(() => handlers.get("msg:custom")?.({ id, result: { call: "x.plan = …" } }, []), ANSWER_MS);
    },
  };
}

window.bench = {
  /** Mounts a scene; returns milliseconds from then until the first frame with boxes. */
  async mount(name) {
    const text = await (await fetch(name)).text();
    const packed = JSON.parse(text);
    const scene = {
      structure: bytes(packed.structure),
      figures: bytes(packed.figures),
      state: packed.state,
    };
    await afterFrame();
    drawn = 0;
    const start = performance.now();
    panelModule.render({ model: host(scene), el: document.getElementById("here") });
    const mounted = performance.now();
    let end = mounted;
    do end = await afterFrame();
    while (drawn < 1 && end - start < 60_000);
    panel = document.querySelector(".pe-panel").precisionExplorer;
    return { ms: end - start, mount_ms: mounted - start, drawn: drawn >= 1 };
  },

  async unfoldAll() {
    const start = performance.now();
    panel.store.setOpen(panel.store.model.structure.groups.label.map((_, group) => group));
    return (await afterFrame()) - start;
  },

  canvas() {
    const { x, y, width, height } = document.querySelector(".pe-graph-canvas, .plot .nsewdrag").getBoundingClientRect();
    return { x, y, width, height };
  },

  /** Records the frames that had a move of the mouse to show, until `stopFrames`; a frame lasts until the next one. */
  startFrames() {
    const record = { deltas: [], drawn: 0, on: true };
    let [last, events, had, before] = [0, 0, false, drawn];
    const count = () => (events += 1);
    for (const name of ["pointermove", "wheel"]) window.addEventListener(name, count, { capture: true, passive: true });
    const step = (now) => {
      if (!record.on) return;
      if (had) record.deltas.push(now - last);
      if (had && drawn !== before) record.drawn += 1;
      [last, had, before, events] = [now, events > 0, drawn, 0];
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
    this.record = record;
    this.stopCounting = () => {
      for (const name of ["pointermove", "wheel"]) window.removeEventListener(name, count, { capture: true });
    };
  },

  stopFrames() {
    this.record.on = false;
    this.stopCounting();
    return { deltas: this.record.deltas, drawn: this.record.drawn };
  },

  /** Returns a layer in the middle of the canvas whose badge can be hit, and where that is. */
  badge() {
    const area = document.querySelector(".pe-graph-canvas").getBoundingClientRect();
    const { store, graph } = panel;
    for (let layer = 0; layer < store.model.layers; layer++) {
      const at = graph.badgeOf(layer);
      if (!at || at.x < area.x || at.x + at.width > area.right) continue;
      if (at.y < area.y + area.height / 4 || at.y > area.y + (3 * area.height) / 4) continue;
      return { layer, x: at.x + at.width / 2, y: at.y + at.height / 2 };
    }
    return null;
  },

  reveal: (layer) => panel.store.reveal(layer),
  switchable: () => [...panel.store.figures.switchable.keys()].filter((each) => panel.store.isSwitchable(each)),

  /** Waits for a click on the graph; resolves with milliseconds from the pointer's press to the frame with the change. */
  watchClick(layer) {
    const before = panel.store.formatOf(layer);
    this.click = new Promise((done) => {
      let pressed = 0;
      window.addEventListener("pointerdown", (event) => (pressed = event.timeStamp), { capture: true, once: true });
      const stop = panel.store.on("data", async () => {
        if (panel.store.formatOf(layer) === before) return;
        stop();
        const had = drawn;
        const end = await afterFrame();
        done({ ms: end - pressed, drawn: drawn > had });
      });
    });
  },

  /** Draws the boxes that the panel shows now, at the same places, with Plotly; the panel goes. */
  async plotly() {
    const { store, graph } = panel;
    const { from, to } = store.model.structure.edges;
    const middles = Array.from({ length: store.model.nodes }, (_, node) => {
      const { x, y, width, height } = graph.rectOf(node);
      return { x: x + width / 2, y: -(y + height / 2) };
    });
    const lines = { x: [], y: [] };
    for (let edge = 0; edge < from.length; edge++) {
      const [a, b] = [middles[from[edge]], middles[to[edge]]];
      lines.x.push(a.x, b.x, null);
      lines.y.push(a.y, b.y, null);
    }
    document.getElementById("here").replaceChildren();
    const place = document.getElementById("here");
    place.className = "plot";
    const traces = [
      { ...lines, type: "scatter", mode: "lines", hoverinfo: "skip", line: { width: 1 } },
      {
        x: middles.map(({ x }) => x),
        y: middles.map(({ y }) => y),
        type: "scatter",
        mode: "markers",
        marker: { symbol: "square", size: 8 },
      },
    ];
    const start = performance.now();
    await globalThis.Plotly.newPlot(place, traces, { dragmode: "pan", showlegend: false }, { scrollZoom: true });
    return { first_ms: (await afterFrame()) - start, boxes: middles.length, edges: from.length };
  },
};
window.ready = true;
