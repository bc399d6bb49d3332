/** The line that tells what just happened: the Python call of an edit, a note, or an error until it is dismissed. */
import { h } from "../dom";
import type { Store } from "../store";
import { setText } from "./controls";

const NOTE_MS = 8000; // long enough to read two lines
const COPIED_MS = 1500;

export interface Notices {
  element: HTMLElement;
  update(): void;
  dispose(): void;
}

export function createNotices(store: Store): Notices {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let copied: ReturnType<typeof setTimeout> | undefined;
  let lastCall = "";
  // Two regions: an error interrupts a screen reader, a call waits for its turn.
  const quiet = h("span", { class: "pe-notice-words", "aria-live": "polite" });
  const code = h("code", { class: "pe-notice-code" });
  const loud = h("span", { class: "pe-notice-words", role: "alert" });
  const copy = h("button", { type: "button", class: "pe-bar-button" }, "Copy");
  const dismiss = h("button", { type: "button", class: "pe-bar-sign", "aria-label": "Dismiss", title: "Dismiss" }, "×");
  const element = h("div", { class: "pe-notice" }, quiet, loud, copy, dismiss);

  const rest = (): void => {
    // Between notices the line shows the last call, and before any what the figures were taken on.
    if (lastCall) show("call", lastCall);
    else show("rest", samples());
  };
  const samples = (): string => {
    const { samples, created } = store.state;
    return [samples && `Taken on ${samples}`, created && `made ${created}`].filter(Boolean).join(", ");
  };
  const show = (tone: string, text: string): void => {
    element.dataset.tone = tone;
    copy.hidden = tone !== "call";
    dismiss.hidden = tone !== "error" && tone !== "note";
    setText(loud, tone === "error" ? text : "");
    setText(code, tone === "call" ? text : "");
    if (tone === "call") {
      if (code.parentElement !== quiet) quiet.replaceChildren(code);
    } else if (tone === "error") quiet.replaceChildren();
    else setText(quiet, text);
    quiet.title = tone === "error" ? "" : text;
  };
  const told = (): void => {
    clearTimeout(timer);
    const notice = store.notice;
    if (!notice) {
      rest();
      return;
    }
    // An error stays until the reader has dismissed it: a call that follows must not hide it.
    if (notice.tone === "call") lastCall = notice.text;
    if (element.dataset.tone === "error" && notice.tone !== "error") return;
    show(notice.tone, notice.text);
    if (notice.tone === "note") timer = setTimeout(rest, NOTE_MS);
  };
  const copyCode = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(lastCall);
      copy.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(code); // the clipboard is closed to this page: the user copies by hand
      copy.textContent = "Selected";
    }
    clearTimeout(copied);
    copied = setTimeout(() => {
      copy.textContent = "Copy";
    }, COPIED_MS);
  };
  copy.addEventListener("click", copyCode);
  dismiss.addEventListener("click", () => {
    clearTimeout(timer);
    rest();
  });
  const stop = store.on("notice", told);
  told();
  return {
    element,
    update() {
      if (element.dataset.tone === "rest") show("rest", samples());
    },
    dispose() {
      stop();
      clearTimeout(timer);
      clearTimeout(copied);
    },
  };
}
