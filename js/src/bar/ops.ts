/** The blacklist of op types: a button that opens a filtered list of which any number can be kept in fp32. */
import { h } from "../dom";
import type { PanelState } from "../protocol";
import type { Store } from "../store";
import { setText, shorten } from "./controls";

type Op = PanelState["ops"][number];

let made = 0;
const PAGE = 8; // options that PageUp and PageDown pass over
const NAME_WIDTH = 48; // characters of an op type

export interface Ops {
  element: HTMLElement;
  update(): void;
  dispose(): void;
}

export function createOps(store: Store): Ops {
  const id = `pe-ops-${made++}`;
  const stop = new AbortController();
  let shown: Op[] = [];
  let active = -1; // index into shown
  /** By op type: blocked or not, as the user wants it until Python has answered. */
  const wanted = new Map<string, boolean>();

  const opener = h("button", {
    type: "button",
    class: "pe-bar-select pe-ops-open",
    "aria-haspopup": "dialog",
    "aria-expanded": "false",
    "aria-controls": id,
  });
  const filter = h("input", {
    type: "search",
    class: "pe-ops-filter",
    placeholder: "Filter op types",
    autocomplete: "off",
    spellcheck: "false",
    role: "combobox",
    "aria-label": "Filter op types",
    "aria-expanded": "true",
    "aria-autocomplete": "list",
    "aria-controls": `${id}-list`,
  });
  const list = h("ul", {
    class: "pe-ops-list",
    role: "listbox",
    id: `${id}-list`,
    "aria-label": "Op types kept in fp32",
    "aria-multiselectable": "true",
  });
  const nothing = h("p", { class: "pe-ops-nothing", role: "status", hidden: true });
  const clear = h("button", { type: "button", class: "pe-bar-button" }, "Allow all");
  const hint = h("span", { class: "pe-ops-hint" }, "↑ ↓ choose, Enter blocks or allows, Esc closes");
  const popover = h(
    "div",
    { class: "pe-ops", id, role: "dialog", "aria-label": "Op types to keep in fp32", hidden: true },
    h("div", { class: "pe-ops-head" }, filter, clear),
    list,
    nothing,
    hint,
  );
  const element = h(
    "div",
    { class: "pe-bar-field pe-ops-host" },
    h("span", { class: "pe-bar-label", id: `${id}-label` }, "Op types in fp32"),
    opener,
    popover,
  );
  opener.setAttribute("aria-describedby", `${id}-label`);

  const isBlocked = (op: Op): boolean => wanted.get(op.op) ?? op.blocked;
  const isOpen = (): boolean => !popover.hidden;

  const change = async (names: string[], block: boolean): Promise<void> => {
    if (names.length === 0) return;
    for (const name of names) wanted.set(name, block);
    draw();
    await store.edit({ op: block ? "block_ops" : "unblock_ops", ops: names });
    for (const name of names) if (wanted.get(name) === block) wanted.delete(name);
    draw();
  };
  const toggle = (op: Op | undefined): void => {
    if (op) void change([op.op], !isBlocked(op));
  };

  const drawOpener = (): void => {
    const blocked = store.state.ops.filter(isBlocked);
    const words =
      blocked.length === 0
        ? "none"
        : blocked.length === 1
          ? shorten(blocked[0]?.op ?? "", 18)
          : `${shorten(blocked[0]?.op ?? "", 12)} + ${blocked.length - 1}`;
    setText(opener, words);
    const all = blocked.map((op) => shorten(op.op, NAME_WIDTH)).join(", ");
    opener.title = blocked.length ? `Kept in fp32: ${all}` : "Keep all layers of an op type in fp32";
    opener.classList.toggle("pe-some", blocked.length > 0);
    clear.disabled = blocked.length === 0;
  };
  const draw = (): void => {
    drawOpener();
    if (!isOpen()) return;
    const needle = filter.value.trim().toLowerCase();
    const before = shown[active]?.op;
    shown = store.state.ops.filter((op) => op.op.toLowerCase().includes(needle));
    active = shown.findIndex((op) => op.op === before);
    if (active < 0) active = shown.length > 0 ? 0 : -1;
    list.replaceChildren(...shown.map(option));
    nothing.hidden = shown.length > 0;
    nothing.textContent = shown.length > 0 ? "" : `No op type with “${shorten(filter.value, 30)}” in its name`;
    mark();
  };
  const option = (op: Op, index: number): HTMLElement => {
    const blocked = isBlocked(op);
    return h(
      "li",
      {
        class: "pe-ops-option",
        role: "option",
        id: `${id}-${index}`,
        "aria-selected": String(blocked),
        title: op.op.slice(0, 400),
      },
      h("span", { class: "pe-ops-check", "aria-hidden": "true" }, blocked ? "✓" : ""),
      h("span", { class: "pe-ops-name" }, shorten(op.op, NAME_WIDTH)),
      h("span", { class: "pe-ops-count" }, `${op.count.toLocaleString("en")} (${op.low.toLocaleString("en")} low)`),
    );
  };
  /** Shows which option the keyboard stands on; the focus itself stays in the filter. */
  const mark = (): void => {
    [...list.children].forEach((child, index) => {
      child.classList.toggle("pe-active", index === active);
    });
    if (active < 0) filter.removeAttribute("aria-activedescendant");
    else filter.setAttribute("aria-activedescendant", `${id}-${active}`);
    list.children[active]?.scrollIntoView?.({ block: "nearest" });
  };
  const move = (to: number): void => {
    active = Math.max(0, Math.min(shown.length - 1, to));
    if (shown.length === 0) active = -1;
    mark();
  };

  const outside = (event: Event): void => {
    if (!event.composedPath().includes(element)) close();
  };
  const open = (): void => {
    popover.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    filter.value = "";
    active = -1;
    draw();
    place();
    filter.focus();
    document.addEventListener("pointerdown", outside, { capture: true, signal: stop.signal });
  };
  const close = (back = false): void => {
    if (!isOpen()) return;
    popover.hidden = true;
    opener.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, { capture: true });
    if (back) opener.focus();
  };
  /** Keeps the popover inside the panel, whose edges cut off what stands out. */
  const place = (): void => {
    const around = element.closest(".pe-panel")?.getBoundingClientRect();
    popover.style.left = "0";
    if (!around) return;
    const box = popover.getBoundingClientRect();
    const over = box.right - around.right + 8;
    if (over > 0) popover.style.left = `${-Math.min(over, box.left - around.left - 8)}px`;
    popover.style.maxHeight = `${Math.max(160, around.bottom - box.top - 8)}px`;
  };

  const keys: Record<string, () => void> = {
    ArrowDown: () => move(active + 1),
    ArrowUp: () => move(active - 1),
    PageDown: () => move(active + PAGE),
    PageUp: () => move(active - PAGE),
    Home: () => move(0),
    End: () => move(shown.length - 1),
    Enter: () => toggle(shown[active]),
    " ": () => toggle(shown[active]), // no op type has a space in its name
  };
  const options = { signal: stop.signal };
  opener.addEventListener("click", () => (isOpen() ? close() : open()), options);
  opener.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "ArrowDown" || isOpen()) return;
      event.preventDefault();
      open();
    },
    options,
  );
  filter.addEventListener("input", draw, options);
  filter.addEventListener(
    "keydown",
    (event) => {
      const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    },
    options,
  );
  popover.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Escape") close(true);
      event.stopPropagation(); // what is typed here is no command on the graph
    },
    options,
  );
  element.addEventListener(
    "focusout",
    (event) => {
      const to = event.relatedTarget as Node | null;
      if (to && !element.contains(to)) close();
    },
    options,
  );
  list.addEventListener("pointerdown", (event) => event.preventDefault(), options); // the filter keeps the focus
  list.addEventListener(
    "click",
    (event) => {
      const at = [...list.children].indexOf((event.target as Element).closest("li") as Element);
      if (at < 0) return;
      move(at);
      toggle(shown[at]);
    },
    options,
  );
  clear.addEventListener(
    "click",
    () => {
      filter.focus(); // the button is about to be disabled, and would drop the focus
      const blocked = store.state.ops.filter(isBlocked);
      void change(
        blocked.map((op) => op.op),
        false,
      );
    },
    options,
  );
  return {
    element,
    update: draw,
    dispose() {
      close();
      stop.abort();
    },
  };
}
