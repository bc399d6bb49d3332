// @vitest-environment jsdom
import { afterEach, describe, expect, it, vi } from "vitest";
import { fade, inkOn, LIGHT, mix, parseColour, readTheme, watchTheme } from "./theme";

afterEach(() => {
  document.body.replaceChildren();
  document.body.removeAttribute("data-jp-theme-light");
  vi.useRealTimers();
});

describe("theme", () => {
  it("reads colours in every notation that browsers compute", () => {
    expect(parseColour("#fff")).toEqual([255, 255, 255]);
    expect(parseColour("#0072b2")).toEqual([0, 114, 178]);
    expect(parseColour("rgb(1, 2, 3)")).toEqual([1, 2, 3]);
    expect(parseColour("rgba(1 2 3 / 0.5)")).toEqual([1, 2, 3]);
    for (const odd of ["", "none", "url(x)", "rgb(a, b, c)"]) expect(parseColour(odd)).toBeNull();
  });

  it("mixes, fades, and finds an ink that can be read", () => {
    expect(mix("#000000", "#ffffff", 0.5)).toBe("rgb(128, 128, 128)");
    expect(fade("#0072b2", 0.5)).toBe("rgba(0, 114, 178, 0.5)");
    expect(inkOn("#2b2b70")).toBe("#ffffff");
    expect(inkOn("#f4f6e4")).not.toBe("#ffffff");
  });

  it("falls back on the panel's own colours where the page gives none", () => {
    const element = document.createElement("div");
    document.body.append(element);
    expect(readTheme(element)).toEqual(LIGHT);
    expect(element.childElementCount).toBe(0);
  });

  it("notices a switch of JupyterLab's theme, at once and when its style sheet has come, until stopped", async () => {
    const changed = vi.fn();
    const stop = watchTheme(changed);
    document.body.dataset.jpThemeLight = "false";
    await vi.waitFor(() => expect(changed).toHaveBeenCalledTimes(2), { timeout: 2000 });
    stop();
    document.body.dataset.jpThemeLight = "true";
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(changed).toHaveBeenCalledTimes(2);
  });
});
