/** The tab Export: files, the blacklist for other tools, and the Python that brings back the present state. */
import { h } from "../dom";
import type { ExportWhat } from "../protocol";
import { RequestError } from "../source";
import type { Store } from "../store";
import { codeBlock } from "./highlight";
import { prose, stem, visible } from "./names";
import type { Part } from "./part";
import { button, copyButton, icon, refill, refusal, section, skeleton } from "./ui";

interface FileKind {
  what: ExportWhat;
  title: string;
  about: string;
  name(store: Store): string;
}
const FILES: FileKind[] = [
  {
    what: "onnx",
    title: "Mixed ONNX model",
    about: "Converted under this plan, checked before it is written.",
    name: (s) => `${base(s)}.${s.state.format}.onnx`,
  },
  {
    what: "plan",
    title: "Plan",
    about: "JSON; load it again with Plan.load, or give it to the command line.",
    name: (s) => `${base(s)}.plan.json`,
  },
  {
    what: "report",
    title: "Report",
    about: "One HTML file that works offline.",
    name: (s) => `${base(s)}.report.html`,
  },
  {
    what: "csv",
    title: "Table of layers",
    about: "CSV with every figure of every layer.",
    name: (s) => `${base(s)}.layers.csv`,
  },
];

function base(store: Store): string {
  return stem(store.model.structure.name);
}

export function createExportTab(store: Store): Part {
  const folded = new Map<string, boolean>();
  const code = h("div");
  const calls = h("div");
  const parts: Part[] = [];
  const sections: HTMLElement[] = [];
  if (store.source.readOnly) {
    sections.push(
      h(
        "p",
        { class: "pe-i-empty" },
        icon("note"),
        "Files are written by Python: open the model in JupyterLab to export it.",
      ),
    );
  } else {
    const files = FILES.map((kind) => fileRow(store, kind));
    const other = blacklistPart(store);
    parts.push(...files, other);
    sections.push(
      section("Files", folded, ...files.map((file) => file.element)),
      section("Blacklist for other tools", folded, other.element),
    );
  }
  sections.push(
    section("Python for the present state", folded, code),
    section("Calls made by this panel", folded, calls),
  );
  const element = h("div", { class: "pe-i-scroll" }, ...sections);
  return {
    element,
    update(topic) {
      for (const part of parts) part.update(topic);
      refill(code, store.state.code, () => [
        store.state.code ? codeBlock(store.state.code, "Copy the code") : h("p", { class: "pe-i-small" }, "Not known."),
      ]);
      refill(calls, store.state.calls, () => [
        store.state.calls.length > 0
          ? codeBlock(store.state.calls.join("\n"), "Copy all calls")
          : h("p", { class: "pe-i-small" }, "None yet."),
      ]);
    },
    dispose() {
      for (const part of parts) part.dispose();
      element.remove();
    },
  };
}

/** Returns whether a refusal is about a file that stands there already. */
export function isTaken(error: unknown): boolean {
  return error instanceof RequestError && /\bexists\b/.test(error.what) && /\boverwrite\b/i.test(error.fix);
}

function fileRow(store: Store, { what, title, about, name }: FileKind): Part {
  const path = h("input", { type: "text", spellcheck: "false", "aria-label": `Path of: ${title}` });
  const write = button("Write", () => void send(false));
  const answer = h("div", { class: "pe-i-answer", "aria-live": "polite" });
  const element = h(
    "form",
    {
      class: "pe-i-file",
      onsubmit: (event: Event) => {
        event.preventDefault();
        void send(false);
      },
    },
    h("div", { class: "pe-i-filetitle" }, h("b", {}, title), h("span", {}, about)),
    h("div", { class: "pe-i-row" }, path, write),
    answer,
  );
  let typed = false;
  let disposed = false;
  path.addEventListener("input", () => {
    typed = true;
    answer.replaceChildren();
  });
  const send = async (overwrite: boolean): Promise<void> => {
    if (write.disabled) return;
    const to = path.value.trim();
    if (!to) {
      answer.replaceChildren(refusal(new RequestError("No path is given.", "", "Type where the file shall go.")));
      return;
    }
    write.disabled = true;
    answer.replaceChildren(h("p", { class: "pe-i-small", role: "status" }, "Writing…"));
    try {
      const done = await store.source.request("export", { what, path: to, ...(overwrite ? { overwrite } : {}) });
      if (disposed) return;
      answer.replaceChildren(
        h(
          "p",
          { class: "pe-i-done" },
          icon("good"),
          h("span", {}, "Written to ", h("code", {}, visible(done.path)), done.note && `. ${prose(done.note)}`),
        ),
      );
      store.say(done.call, "call");
    } catch (error) {
      if (!disposed) answer.replaceChildren(isTaken(error) && !overwrite ? confirm(to) : refusal(error));
    } finally {
      write.disabled = false;
    }
  };
  const confirm = (to: string): HTMLElement => {
    const yes = button("Overwrite", () => void send(true), { class: "pe-i-danger" });
    queueMicrotask(() => yes.focus());
    return h(
      "div",
      { class: "pe-i-refusal", role: "alert" },
      icon("warn", "Warning"),
      h(
        "div",
        {},
        h("p", { class: "pe-i-what" }, `${visible(to)} exists already.`),
        h(
          "div",
          { class: "pe-i-row" },
          yes,
          button("Keep it", () => answer.replaceChildren()),
        ),
      ),
    );
  };
  return {
    element,
    update() {
      if (!typed) path.value = name(store);
    },
    dispose() {
      disposed = true;
    },
  };
}

/** Returns the blacklist in the syntax of a tool that the user chooses. */
function blacklistPart(store: Store): Part {
  const tool = h("select", { "aria-label": "Tool" });
  const text = h("textarea", { readonly: true, rows: 7, spellcheck: "false", "aria-label": "Blacklist" });
  const note = h("p", { class: "pe-i-small" });
  const copy = copyButton(
    () => text.value,
    () => text,
    "Copy the blacklist",
  );
  const body = h("div", {}, h("div", { class: "pe-i-row" }, tool, copy), text, note);
  const element = h("div", { class: "pe-i-blacklist" }, skeleton(3));
  let names: string[] | null = null;
  let asked = "";
  const load = async (): Promise<void> => {
    names = [];
    try {
      const { tools } = await store.source.request("tools", {});
      names = tools.map((one) => one.name);
      tool.replaceChildren(...tools.map((one) => h("option", { value: one.name }, one.label)));
      element.replaceChildren(tools.length > 0 ? body : h("p", { class: "pe-i-small" }, "No other tool is known."));
      await fetch();
    } catch (error) {
      element.replaceChildren(refusal(error));
    }
  };
  const fetch = async (): Promise<void> => {
    if (!names?.length) return;
    const wanted = `${tool.value} ${store.state.revision}`;
    if (wanted === asked) return;
    asked = wanted;
    try {
      const got = await store.source.request("blacklist", { tool: tool.value });
      if (asked !== wanted) return;
      text.value = got.text;
      note.replaceChildren(prose(got.note));
    } catch (error) {
      if (asked !== wanted) return;
      text.value = "";
      note.replaceChildren(refusal(error));
    }
  };
  tool.addEventListener("change", () => void fetch());
  return {
    element,
    update() {
      if (names === null) void load();
      else void fetch();
    },
    dispose() {
      asked = "";
    },
  };
}
