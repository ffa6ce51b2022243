/** The player's keys, and which events on the player reach the editor. */

// on a control, these must not reach the canvas or a node of Nodes 2.0
const KEYBOARD_EVENTS = ["keydown", "keyup", "keypress", "paste", "copy", "cut"];
const POINTER_EVENTS = ["pointerdown", "pointerup", "mousedown", "mouseup", "touchstart", "dblclick", "contextmenu"];
const CONTROL_EVENTS = [...KEYBOARD_EVENTS, ...POINTER_EVENTS];

/** @param {EventTarget | null} target */
export const takesText = (target) => target instanceof Element && target.matches("input:not([type=range]), textarea");

/**
 * Keeps events on a control from the editor. Keys that type no text go through, to listenToKeys.
 *
 * @param {HTMLElement} control
 */
export function keepEvents(control) {
  for (const type of CONTROL_EVENTS)
    control.addEventListener(type, (event) => {
      if (!type.startsWith("key") || takesText(event.target)) event.stopPropagation();
    });
}

/**
 * Runs an action for each key pressed in an element, but in an input of text. Such keys do not reach the editor.
 *
 * @param {HTMLElement} element
 * @param {Record<string, () => void>} actions by key; "Shift+" before it: with that key
 * @param {(name: string) => (() => void) | undefined} bound what a key does instead, once for each press
 */
export function listenToKeys(element, actions, bound) {
  /** @param {KeyboardEvent} event */
  const actionOf = ({ key, target, shiftKey, ctrlKey, metaKey, altKey, repeat }) => {
    if (takesText(target) || ctrlKey || metaKey || altKey) return undefined;
    const name = key.length === 1 ? key.toLowerCase() : key;
    const full = shiftKey && key.length > 1 ? `Shift+${name}` : name;
    const steer = bound(full);
    return steer && repeat ? () => {} : (steer ?? actions[full]);
  };
  element.addEventListener("keydown", (event) => {
    const act = actionOf(event);
    if (!act) return;
    event.stopPropagation();
    if (event.key === " " && event.target instanceof HTMLButtonElement) return; // the key presses the button
    event.preventDefault();
    act();
  });
  for (const type of /** @type {const} */ (["keyup", "keypress"]))
    element.addEventListener(type, (event) => actionOf(event) && event.stopPropagation());
}
