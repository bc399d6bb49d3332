/** The colours of the page around us, as values that a canvas can use, and a call when the user switches the theme. */

export interface Theme {
  dark: boolean;
  ink: string;
  muted: string;
  paper: string;
  paper2: string;
  line: string;
  accent: string;
  stop: string;
  warn: string;
  good: string;
  font: string;
  mono: string;
}

export type Rgb = readonly [number, number, number]; // 0..255

/** What stands in panel.css for a page without a theme of its own. */
export const LIGHT: Theme = {
  dark: false,
  ink: "#1b1f24",
  muted: "#5a6572",
  paper: "#ffffff",
  paper2: "#f7f8fa",
  line: "#d6dbe1",
  accent: "#0072b2",
  stop: "#d55e00",
  warn: "#e69f00",
  good: "#009e73",
  font: "system-ui, sans-serif",
  mono: "ui-monospace, monospace",
};

const NAMES = ["ink", "muted", "line", "accent", "stop", "warn", "good"] as const;
/** Relative luminance of paper below which it counts as dark; JupyterLab's dark paper has 0.006, its light one 1. */
const DARK_BELOW = 0.25;
/** JupyterLab sets its attribute before the new style sheet has come in; it is there within this time. */
const SETTLE_MS = 300;

/** Returns red, green and blue of `#rgb`, `#rrggbb`, `rgb(…)`, `rgba(…)`; null for what is none of them. */
export function parseColour(text: string): Rgb | null {
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(text.trim())?.[1];
  if (hex) {
    const wide = hex.length === 3 ? [...hex].map((digit) => digit + digit).join("") : hex;
    return [0, 2, 4].map((at) => Number.parseInt(wide.slice(at, at + 2), 16)) as unknown as Rgb;
  }
  const parts = /^rgba?\(([^)]+)\)$/i
    .exec(text.trim())?.[1]
    ?.split(/[\s,/]+/)
    .map(Number.parseFloat);
  if (!parts || parts.length < 3 || parts.slice(0, 3).some((part) => !Number.isFinite(part))) return null;
  return parts.slice(0, 3) as unknown as Rgb;
}

/** Returns the relative luminance of WCAG 2, 0 (black) to 1 (white). */
export function luminance(colour: string): number {
  const [r, g, b] = (parseColour(colour) ?? [0, 0, 0]).map((part) => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Returns the colour that lies `share` of the way from one to the other. */
export function mix(from: string, to: string, share: number): string {
  const a = parseColour(from) ?? [0, 0, 0];
  const b = parseColour(to) ?? [0, 0, 0];
  const [r, g, bl] = a.map((part, at) => Math.round(part + ((b[at] as number) - part) * share));
  return `rgb(${r}, ${g}, ${bl})`;
}

/** Returns the colour with an opacity. */
export function fade(colour: string, opacity: number): string {
  const [r, g, b] = parseColour(colour) ?? [128, 128, 128];
  return `rgba(${r}, ${g}, ${b}, ${opacity})`;
}

/** Returns near-black or white, whichever can be read on the colour. */
export function inkOn(colour: string): string {
  // Contrast with white is 1.05 / (L + 0.05), with this ink (L + 0.05) / 0.059; they are equal at L = 0.199, with 4.2.
  return luminance(colour) > 0.199 ? "#14181d" : "#ffffff";
}

/** Returns the theme as it holds inside an element of the panel. */
export function readTheme(element: HTMLElement): Theme {
  // A probe resolves names, var() and color-mix() into rgb(); reading the variable would give its text.
  const probe = document.createElement("span");
  probe.style.display = "none";
  element.append(probe);
  const paper = resolve(probe, "var(--pe-paper)", LIGHT.paper) ?? LIGHT.paper;
  const theme: Theme = { ...LIGHT, paper };
  for (const name of NAMES) theme[name] = resolve(probe, `var(--pe-${name})`, paper) ?? LIGHT[name];
  theme.paper2 = resolve(probe, "var(--pe-paper-2)", paper) ?? LIGHT.paper2;
  probe.remove();
  const style = getComputedStyle(element);
  theme.font = style.getPropertyValue("--pe-font").trim() || LIGHT.font;
  theme.mono = style.getPropertyValue("--pe-mono").trim() || LIGHT.mono;
  theme.dark = luminance(theme.paper) < DARK_BELOW;
  return theme;
}

/** Returns a CSS colour as it looks on paper (JupyterLab's ink is translucent); null where it cannot be read. */
function resolve(probe: HTMLElement, value: string, paper: string): string | null {
  probe.style.color = "";
  probe.style.color = value;
  const found = getComputedStyle(probe).color;
  if (!parseColour(found)) return null;
  const opacity = /^rgba/.test(found) ? Number.parseFloat(found.split(/[,/]/).pop() ?? "1") : 1;
  return opacity === 0 ? null : mix(paper, found, opacity);
}

/** Calls back when the page's theme changes, in JupyterLab, in VS Code or in the system; returns how to stop that. */
export function watchTheme(changed: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = (): void => {
    changed();
    clearTimeout(timer);
    timer = setTimeout(changed, SETTLE_MS);
  };
  const observer = new MutationObserver(heard);
  const attributeFilter = [
    "data-jp-theme-light",
    "data-jp-theme-name",
    "data-vscode-theme-kind",
    "data-theme",
    "class",
  ];
  for (const element of [document.body, document.documentElement]) {
    observer.observe(element, { attributes: true, attributeFilter });
  }
  const system = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  system?.addEventListener("change", heard);
  return () => {
    clearTimeout(timer);
    observer.disconnect();
    system?.removeEventListener("change", heard);
  };
}
