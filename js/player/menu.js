import { make } from "../lib/dom.js";
import { close } from "./popup.js";
import { icon } from "./icons.js";
import { fillKeys } from "./key_editor.js";

/** What the player's menu offers: the settings and actions that one needs less often. */

/** @typedef {"fit" | "natural" | "double"} Size of the picture */

export const SPEEDS = [0.25, 0.5, 1, 1.5, 2];
const LONGEST_BLEND = 16; // chunks

/** @type {Record<Size, TextKey>} */
const SIZES = { fit: "player.fit", natural: "player.natural", double: "player.double" };

/**
 * @typedef {object} MenuState
 * @property {number} speed
 * @property {boolean} loops
 * @property {Size} size
 * @property {number | null} blend chunks in which a typed prompt blends in; null: the node takes no prompts
 * @property {import("./bound_keys.js").BoundKeys | null} keys that steer; null: the node takes none
 * @property {boolean} hasPicture
 * @property {boolean} hasVideo
 *
 * @typedef {object} MenuActions
 * @property {(speed: number) => void} speed
 * @property {() => void} loop
 * @property {(size: Size) => void} size
 * @property {(chunks: number) => void} blend
 * @property {() => void} copy
 * @property {() => void} save
 * @property {() => void} download
 */

/**
 * Fills the menu.
 *
 * @param {HTMLElement} panel
 * @param {MenuState} state
 * @param {MenuActions} actions
 * @param {Translate} t
 */
export function fillMenu(panel, state, actions, t) {
  /** @type {(act: () => void) => () => void} */
  const done = (act) => () => {
    act();
    close(panel);
  };
  const speeds = SPEEDS.map((speed) => ({ text: `${speed}×`, pressed: speed === state.speed, act: done(() => actions.speed(speed)) }));
  const sizes = /** @type {Size[]} */ (Object.keys(SIZES)).map((size) => ({
    ...{ text: t(SIZES[size]), pressed: size === state.size, act: done(() => actions.size(size)) },
  }));
  const items = [
    choice(t("player.speed"), speeds),
    choice(t("player.size"), sizes),
    item(t("player.loop"), done(actions.loop), { pressed: state.loops }),
    make("hr"),
    item(t("player.copyFrame"), done(actions.copy), { disabled: !state.hasPicture }),
    item(t("player.saveFrame"), done(actions.save), { disabled: !state.hasPicture }),
    item(t("player.download"), done(actions.download), { disabled: !state.hasVideo }),
  ];
  if (state.blend !== null) items.push(make("hr"), blendField(state.blend, actions.blend, t));
  const { keys } = state;
  if (keys) items.push(item(t("keys.menu"), () => fillKeys(panel, keys, t), {}));
  panel.replaceChildren(...items);
}

/** @type {(text: string, act: () => void, looks: {pressed?: boolean, disabled?: boolean}) => HTMLElement} */
function item(text, act, { pressed, disabled = false }) {
  const button = make("button", { type: "button", className: "sf-item", onclick: act, disabled }, text);
  if (pressed !== undefined) button.setAttribute("aria-pressed", String(pressed));
  if (pressed) button.append(icon("check"));
  return button;
}

/** @type {(label: string, options: {text: string, pressed: boolean, act: () => void}[]) => HTMLElement} */
function choice(label, options) {
  const buttons = options.map(({ text, pressed, act }) =>
    make("button", { type: "button", "aria-pressed": String(pressed), onclick: act }, text),
  );
  return make("div", { className: "sf-choice", role: "group", "aria-label": label }, make("span", {}, label), ...buttons);
}

/** @type {(chunks: number, set: (chunks: number) => void, t: Translate) => HTMLElement} */
function blendField(chunks, set, t) {
  const field = make("input", { type: "number", min: 1, max: LONGEST_BLEND, step: 1, value: chunks });
  field.onchange = () => {
    const wanted = Math.max(1, Math.min(LONGEST_BLEND, Math.round(field.valueAsNumber) || 1));
    field.value = String(wanted);
    set(wanted);
  };
  return make("label", { className: "sf-choice", title: t("steering.blendTooltip") }, make("span", {}, t("steering.blend")), field);
}
