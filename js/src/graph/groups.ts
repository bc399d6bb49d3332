/** Which scope groups to unfold. */
import type { Model } from "../model";

/** Returns the groups to unfold at the start: level by level, in execution order, until `limit` boxes are visible. */
export function initialOpen(model: Model, limit = 150): Set<number> {
  const open = new Set([0]);
  const held = (group: number): number =>
    (model.childLayers[group]?.length ?? 0) + (model.childGroups[group]?.length ?? 0);
  let visible = held(0) + model.nodes - model.layers;
  let level = [...(model.childGroups[0] ?? [])];
  while (level.length > 0) {
    const next: number[] = [];
    for (const group of level.sort((a, b) => a - b)) {
      if (visible + held(group) > limit) continue; // a smaller one after it may still fit
      open.add(group);
      visible += held(group);
      next.push(...(model.childGroups[group] ?? []));
    }
    level = next;
  }
  return open;
}

/** Returns a group and all groups in it. */
export function groupsIn(model: Model, group: number): number[] {
  return [group, ...(model.childGroups[group] ?? []).flatMap((inner) => groupsIn(model, inner))];
}
