// Draws each chart when it comes into view, in the colours of the reader's theme. Plotly is the global `Plotly`.
"use strict";
(() => {
  const NARROW = 640; // CSS pixels, the same as in report.css
  const PAPER = 660; // CSS pixels: A4 upright less its margins, 182 mm, with some to spare
  const DRAW_AHEAD = "400px"; // a chart is drawn before the reader reaches it
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const darkOf = read("data-dark");
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const drawn = new Set();
  const figures = new Map();

  /** Reads a chart's figure; that of a large model is packed, and unpacked once, as soon as the page is there. */
  async function unpack(node) {
    const found = read(`data-${node.dataset.chart}`);
    if (found.gzip === undefined) return found;
    const bytes = Uint8Array.from(atob(found.gzip), (letter) => letter.charCodeAt(0));
    return new Response(new Response(bytes).body.pipeThrough(new DecompressionStream("gzip"))).json();
  }
  for (const node of plots) {
    const reading = unpack(node);
    figures.set(node, reading);
    // Once it is there, a chart is drawn without waiting: printing waits for nothing.
    reading.then((figure) => figures.set(node, figure)).catch((error) => { node.textContent = `The chart cannot be read: ${error}`; });
  }

  /** Returns a copy of a figure with every colour that has a dark twin replaced by it. */
  function darken(value) {
    if (typeof value === "string") return Object.hasOwn(darkOf, value) ? darkOf[value] : value;
    if (Array.isArray(value)) return value.map(darken);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, key === "text" || key === "bdata" ? item : darken(item)]));
  }

  function styled(figure, dark, node, width) {
    const copy = dark ? darken(figure) : structuredClone(figure);
    const layout = copy.layout;
    if (width) layout.width = width;
    layout.font.family = getComputedStyle(document.body).fontFamily;
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: dark ? "#22282f" : "#ffffff", bordercolor: layout.font.color, font: { size: 12, color: layout.font.color } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: dark ? "#a3aeba" : "#8a94a0", activecolor: layout.font.color, orientation: "v" };
    if (node.clientWidth && node.clientWidth < NARROW) {
      layout.margin = { ...layout.margin, l: 40, r: 6 };
      layout.font.size = 11;
      layout.legend.font = { size: 11 };
      if (figure.by_layer) layout.yaxis.title = undefined;
    }
    return copy;
  }

  async function draw(node, dark, width = 0) {
    const held = figures.get(node);
    const figure = held instanceof Promise ? await held : held;
    const first = !drawn.has(node);
    drawn.add(node);
    const { data, layout } = styled(figure, dark, node, width);
    const settings = {
      responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", // nothing leaves the page
      displayModeBar: node.clientWidth < NARROW ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"], toImageButtonOptions: { format: "svg" },
    };
    await Plotly.react(node, data, layout, settings);
    node.dataset.drawn = dark ? "dark" : "light";
    if (first && figure.by_layer) node.on("plotly_click", (event) => openLayer(event.points[0].x - 1));
  }

  const openLayer = (row) => document.dispatchEvent(new CustomEvent("open-layer", { detail: row }));

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target, isDark.matches);
    }
  }, { rootMargin: DRAW_AHEAD });
  plots.forEach((node) => watcher.observe(node));

  isDark.addEventListener("change", () => { for (const node of drawn) draw(node, isDark.matches); });
  addEventListener("beforeprint", () => plots.forEach((node) => draw(node, false, PAPER))); // paper is light, and shows all
  addEventListener("afterprint", () => plots.forEach((node) => draw(node, isDark.matches)));

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range); // where the clipboard is closed to the page, the reader can copy by hand
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }
})();
