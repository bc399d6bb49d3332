/** The controls that the bar is made of: a labelled select that keeps the user's choice until Python has answered. */
import { h } from "../dom";

export interface Choice {
  value: string;
  label: string;
  disabled?: boolean;
  /** Choices of one group stand together under its name. */
  group?: string;
  /** What the closed control shows in place of the label, which is for those who choose. */
  short?: string;
}

export interface Select {
  element: HTMLLabelElement;
  /** Shows choices and the chosen one; a choice of the user that is under way stays on screen. */
  update(choices: readonly Choice[], value: string): void;
}

/** Returns a select under its label; `choose` is called with the user's choice and ends when Python has answered. */
export function select(label: string, title: string, choose: (value: string) => Promise<void>): Select {
  let drawn = "";
  let waiting: string | null = null;
  let wanted = "";
  const field = h("select", { class: "pe-bar-select" });
  const face = h("span", { class: "pe-bar-face", "aria-hidden": "true", hidden: true });
  const box = h("span", { class: "pe-bar-faced" }, field, face);
  const element = h("label", { class: "pe-bar-field", title }, h("span", { class: "pe-bar-label" }, label), box);
  let shorts = new Map<string, string>();
  const draw = (): void => {
    const short = shorts.get(field.value);
    face.hidden = short === undefined;
    box.classList.toggle("pe-bar-short", short !== undefined);
    face.textContent = short ?? "";
  };
  field.addEventListener("change", async () => {
    const mine = field.value;
    waiting = mine;
    draw();
    await choose(mine);
    if (waiting !== mine) return; // a newer choice is under way
    waiting = null;
    field.value = wanted;
    draw();
  });
  return {
    element,
    update(choices, value) {
      const key = JSON.stringify(choices);
      // Options are made anew only when they differ: a list that is open would close.
      if (key !== drawn) {
        drawn = key;
        field.replaceChildren(...grouped(choices));
        shorts = new Map(choices.flatMap(({ value: name, short }) => (short ? [[name, short]] : [])));
      }
      wanted = value;
      field.value = waiting ?? value;
      draw();
    },
  };
}

function grouped(choices: readonly Choice[]): HTMLElement[] {
  const made: HTMLElement[] = [];
  const groups = new Map<string, HTMLElement>();
  for (const choice of choices) {
    const option = h("option", { value: choice.value, disabled: choice.disabled }, choice.label);
    const { group } = choice;
    if (!group) {
      made.push(option);
      continue;
    }
    let held = groups.get(group);
    if (!held) {
      held = h("optgroup", { label: group });
      groups.set(group, held);
      made.push(held);
    }
    held.append(option);
  }
  return made;
}

/** Returns a button with a sign; its name is its title, which `name` sets for the eye and for screen readers. */
export function signButton(sign: string, press: () => void): { element: HTMLButtonElement; name(text: string): void } {
  const element = h(
    "button",
    { type: "button", class: "pe-bar-sign", onclick: press },
    h("span", { "aria-hidden": "true" }, sign),
  );
  return {
    element,
    name(text) {
      element.title = text;
      element.setAttribute("aria-label", text);
    },
  };
}

/** Sets a text only where it differs: a screen reader repeats what is set again. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Returns a text cut in its middle, so that both ends of a long name can be read. */
export function shorten(text: string, width: number): string {
  const line = text.replace(/\s+/g, " ");
  if (line.length <= width) return line;
  const head = Math.floor(width / 2);
  return `${line.slice(0, head)}…${line.slice(line.length - (width - head - 1))}`;
}
