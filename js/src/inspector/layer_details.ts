/** Inputs, outputs, attributes, weights and source line of a layer; asked for once a layer. */
import { h } from "../dom";
import type { LayerDetails, Quantisation, TensorInfo, WeightFigures } from "../protocol";
import type { Store } from "../store";
import { shorten, tip, visible } from "./names";
import { count, float, plural, quantity, share, size } from "./numbers";
import type { Part } from "./part";
import { copyButton, pairs, refusal, section, skeleton } from "./ui";

const PAUSE_MS = 60;
const LONGEST = 600; // characters of an attribute's value

export function createDetails(store: Store, folded: Map<string, boolean>): Part {
  const element = h("div");
  const known = new Map<string, LayerDetails>();
  let wanted = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = (details: LayerDetails): void => element.replaceChildren(...sections(store, details, folded));
  return {
    element,
    update() {
      const layer = store.focus;
      const key = `${layer} ${store.lowFormatOf(layer)}`; // what the weights lose depends on the format
      if (key === wanted) return;
      wanted = key;
      clearTimeout(timer);
      const found = known.get(key);
      if (found) return show(found);
      element.replaceChildren(skeleton(4));
      timer = setTimeout(async () => {
        try {
          const details = await store.source.request("layer", { layer });
          known.set(key, details);
          if (wanted === key) show(details);
        } catch (error) {
          if (wanted === key) element.replaceChildren(refusal(error, store.source.readOnly));
        }
      }, PAUSE_MS);
    },
    dispose() {
      wanted = "";
      clearTimeout(timer);
      element.remove();
    },
  };
}

function sections(store: Store, d: LayerDetails, folded: Map<string, boolean>): HTMLElement[] {
  const found = [
    section(
      "Inputs and outputs",
      folded,
      tensors(store, d.layer, d.inputs, "in"),
      tensors(store, d.layer, d.outputs, "out"),
    ),
  ];
  if (d.weights.length > 0) {
    found.push(
      section("Weights", folded, ...d.weights.map((weight) => weightFigures(weight, store.lowFormatOf(d.layer)))),
    );
  }
  if (d.quantisation.length > 0) {
    found.push(section("Quantised in the source model", folded, ...d.quantisation.map(quantisationFigures)));
  }
  if (d.attributes.length > 0) {
    const rows = d.attributes.map(({ name, value }): [string, Node] => [
      visible(name),
      h("code", {}, visible(shorten(value, LONGEST))),
    ]);
    found.push(section("Attributes", folded, pairs(...rows)));
  }
  const code = h("code", {}, visible(d.code));
  const origin = [
    d.source && ([h("span", {}, visible(d.source)), "line"] as const),
    d.scope && ([h("span", {}, visible(d.scope)), "scope"] as const),
    d.name && d.name !== store.model.name(d.layer) && ([h("span", {}, visible(d.name)), "name"] as const),
    d.domain && ([h("span", {}, visible(d.domain)), "domain"] as const),
  ].filter((row) => row !== "" && row !== false);
  if (origin.length > 0 || d.code) {
    found.push(
      section(
        "Source",
        folded,
        pairs(...origin.map(([node, label]): [string, Node] => [label, node])),
        d.code
          ? h(
              "div",
              { class: "pe-i-code" },
              h("pre", {}, code),
              copyButton(
                () => d.code,
                () => code,
                "Copy the line",
              ),
            )
          : "",
      ),
    );
  }
  return found;
}

/** Returns the layers at the other end of a tensor: its maker, or those that read it. */
function ends(store: Store, layer: number, tensor: string, way: "in" | "out"): number[] {
  const { structure, entering, leaving } = store.model;
  const { edges, tensors: all } = structure;
  const near = (way === "in" ? entering : leaving)[layer] ?? [];
  const nodes = near
    .filter((edge) => all.name[edges.tensor[edge] ?? -1] === tensor)
    .map((edge) => (way === "in" ? edges.from : edges.to)[edge] ?? -1);
  return [...new Set(nodes)].filter((node) => store.model.isLayer(node));
}

const KINDS = { value: "", weight: "weight", input: "model input", output: "model output", absent: "left out" };

function tensors(store: Store, layer: number, list: TensorInfo[], way: "in" | "out"): HTMLElement {
  return h(
    "ul",
    { class: "pe-i-tensors", "aria-label": way === "in" ? "Inputs" : "Outputs" },
    ...list.map((tensor) => {
      const others = ends(store, layer, tensor.name, way);
      const name = shorten(tensor.name, 60) || "–";
      const where = way === "in" ? "made by" : "read by";
      const jump = (): void => (others.length === 1 ? store.reveal(others[0] ?? -1) : store.select(others, others[0]));
      return h(
        "li",
        {},
        h("span", { class: "pe-i-way" }, way),
        others.length > 0
          ? h(
              "button",
              {
                type: "button",
                class: "pe-i-link",
                title: `${where} ${others.length === 1 ? tip(store.model.name(others[0] ?? -1)) : plural(others.length, "layer")}`,
                onclick: jump,
              },
              h("span", { class: "pe-i-tail" }, name),
            )
          : h("span", { class: "pe-i-plain", title: tip(tensor.name) }, name),
        h("span", { class: "pe-i-kind" }, others.length > 1 ? plural(others.length, "layer") : KINDS[tensor.kind]),
        h("span", { class: "pe-i-type" }, tensor.kind === "absent" ? "" : `${tensor.dtype} ${tensor.shape}`),
      );
    }),
  );
}

/** How the model came: the scales that it holds, which no plan changes. */
function quantisationFigures(q: Quantisation): HTMLElement {
  const scale =
    q.least === null || q.largest === null
      ? "computed when the model runs"
      : q.least === q.largest
        ? quantity(q.least)
        : `${quantity(q.least)} … ${quantity(q.largest)}`;
  const spread = q.block > 0 ? `one for ${plural(q.block, "element")}` : `one for each of ${count(q.scales)} channels`;
  return h(
    "div",
    { class: "pe-i-weight" },
    h("p", { class: "pe-i-weight-name", title: tip(q.tensor) }, shorten(q.tensor, 60)),
    pairs(
      ["codes", q.dtype],
      ["scale", q.scales > 1 ? `${scale}, ${spread}${q.axis === null ? "" : `, axis ${q.axis}`}` : scale],
      ["zero point", q.zero],
    ),
  );
}

function weightFigures(w: WeightFigures, low: string): HTMLElement {
  const lost = (
    [
      ["overflow", w.overflow],
      ["turn subnormal", w.subnormal],
      ["flush to zero", w.flushed],
    ] as const
  ).filter(([, number]) => number > 0);
  const losses = lost.map(([label, number]) => `${count(number)} (${share(number / w.elements)}) ${label}`);
  return h(
    "div",
    { class: "pe-i-weight" },
    h("p", { class: "pe-i-weight-name", title: tip(w.name) }, shorten(w.name, 60)),
    pairs(
      ["type", `${w.dtype} ${w.shape}, ${size(w.bytes)}`],
      ["range", `${quantity(float(w.min))} … ${quantity(float(w.max))}`],
      ["mean ± std", `${quantity(float(w.mean))} ± ${quantity(float(w.std))}`],
      w.zeros > 0 && ["zeros", `${count(w.zeros)} (${share(w.zeros / w.elements)})`],
      [`in ${low}`, losses.length > 0 ? losses.join(", ") : "nothing leaves its normal range"],
    ),
  );
}
