/** The inspector, right of the graph: tabs Layer, Table, Trade-off, Findings, Export. */
import type { Store, Tab, Topic } from "../store";
import { createExportTab } from "./export_tab";
import { createFindingsTab, isFolded } from "./findings_tab";
import { createLayerTab } from "./layer_tab";
import type { Part } from "./part";
import { createSplitter } from "./splitter";
import { createTableTab } from "./table_tab";
import { createTabs } from "./tabs";
import { createTradeoffTab } from "./tradeoff_tab";
import "../style/inspector.css";

const MAKERS: Record<Tab, (store: Store) => Part> = {
  layer: createLayerTab,
  table: createTableTab,
  tradeoff: createTradeoffTab,
  findings: createFindingsTab,
  export: createExportTab,
};
const PREVIEWED: ReadonlySet<Tab> = new Set(["layer", "table", "tradeoff"]);
const NAMES = [
  ["layer", "Layer"],
  ["table", "Table"],
  ["tradeoff", "Trade-off"],
  ["findings", "Findings"],
  ["export", "Export"],
] as const;

export function createInspector(host: HTMLElement, store: Store): { dispose(): void } {
  const parts = new Map<Tab, Part>();
  const names = NAMES.filter(([name]) => !store.source.hides?.includes(name));
  const tabs = createTabs("Inspector", names, (name) => store.setTab(name));
  const splitter = createSplitter(host);
  host.append(tabs.list, ...tabs.panels.values());

  /** Makes a tab when it is first looked at, and updates the one that is up: the others follow when their turn comes. */
  const show = (topic?: Topic): void => {
    let part = parts.get(store.tab);
    if (!part) {
      part = MAKERS[store.tab](store);
      parts.set(store.tab, part);
      tabs.panels.get(store.tab)?.append(part.element);
    }
    tabs.show(store.tab);
    part.update(topic);
  };
  const count = (): void => {
    const urgent = store.state.findings.filter(
      (finding) => (finding.tone === "stop" || finding.tone === "warn") && !isFolded(finding),
    ).length;
    tabs.mark("findings", urgent > 0 ? String(urgent) : "");
  };
  const stops = [
    store.on("tab", () => {
      splitter.unfold();
      show();
    }),
    store.on("selection", () => show("selection")),
    store.on("preview", () => {
      if (PREVIEWED.has(store.tab)) show("preview"); // the others tell nothing of formats
    }),
    store.on("data", () => {
      count();
      show("data");
    }),
  ];
  count();
  show();
  return {
    dispose() {
      for (const stop of stops) stop();
      for (const part of parts.values()) part.dispose();
      splitter.dispose();
      host.replaceChildren();
    },
  };
}
