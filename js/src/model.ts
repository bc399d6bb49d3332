/** The model with the indexes that views ask for: neighbours of a node, children of a group, the way to the root. */
import type { Structure } from "./protocol";

export class Model {
  readonly layers: number;
  readonly nodes: number;
  /** By node: indices of edges that enter and leave it. */
  readonly entering: readonly (readonly number[])[];
  readonly leaving: readonly (readonly number[])[];
  /** By group: child groups, and layers that it holds directly, in execution order. */
  readonly childGroups: readonly (readonly number[])[];
  readonly childLayers: readonly (readonly number[])[];
  /** By group: number of layers at any depth. */
  readonly size: readonly number[];
  private readonly indices: ReadonlyMap<string, number>;

  constructor(readonly structure: Structure) {
    const { layers, inputs, outputs, edges, groups } = structure;
    this.layers = layers.id.length;
    this.nodes = this.layers + inputs.name.length + outputs.name.length;
    this.entering = lists(this.nodes, edges.to);
    this.leaving = lists(this.nodes, edges.from);
    this.childGroups = lists(groups.label.length, groups.parent);
    this.childLayers = lists(groups.label.length, layers.group);
    const size = this.childLayers.map((held) => held.length);
    for (let group = size.length - 1; group > 0; group--) {
      const parent = groups.parent[group] as number; // a parent comes before its children
      size[parent] = (size[parent] as number) + (size[group] as number);
    }
    this.size = size;
    this.indices = new Map(layers.id.map((id, index) => [id, index]));
  }

  isLayer(node: number): boolean {
    return node >= 0 && node < this.layers;
  }

  isInput(node: number): boolean {
    return node >= this.layers && node < this.layers + this.structure.inputs.name.length;
  }

  /** Returns the layer's id, or the name of the model input or output. */
  name(node: number): string {
    const { layers, inputs, outputs } = this.structure;
    if (node < this.layers) return layers.id[node] ?? "";
    const rest = node - this.layers;
    return rest < inputs.name.length ? (inputs.name[rest] ?? "") : (outputs.name[rest - inputs.name.length] ?? "");
  }

  op(layer: number): string {
    return this.structure.ops[this.structure.layers.op[layer] ?? -1] ?? "";
  }

  indexOf(id: string): number {
    return this.indices.get(id) ?? -1;
  }

  /** Returns the group that directly holds a node: the scope of a layer; the root for model inputs and outputs. */
  groupOf(node: number): number {
    return this.isLayer(node) ? (this.structure.layers.group[node] ?? 0) : 0;
  }

  /** Returns the group and all groups around it, innermost first, the root last. */
  lineage(group: number): number[] {
    const way = [];
    for (let at = group; at >= 0; at = this.structure.groups.parent[at] ?? -1) way.push(at);
    return way;
  }

  /** Returns all layers of a group, at any depth, in execution order. */
  layersIn(group: number): number[] {
    const found: number[] = [];
    const visit = (at: number): void => {
      found.push(...(this.childLayers[at] ?? []));
      for (const child of this.childGroups[at] ?? []) visit(child);
    };
    visit(group);
    return found.sort((a, b) => a - b);
  }
}

/** Returns for each key below `count` the positions at which it stands in `keys`. */
function lists(count: number, keys: readonly number[]): number[][] {
  const found: number[][] = Array.from({ length: count }, () => []);
  keys.forEach((key, index) => {
    found[key]?.push(index);
  });
  return found;
}
