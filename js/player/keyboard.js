/** The player's keys, and which events on the player reach the editor. */

// on a control, these must not reach the canvas or a node of Nodes 2.0
const KEYBOARD_EVENTS = ["keydown", "keyup", "keypress", "paste", "copy", "cut"];
const CONTROL_EVENTS = [...KEYBOARD_EVENTS, "pointerdown", "mousedown", "dblclick", "contextmenu"];

/** @param {EventTarget | null} target */
const takesText = (target) => target instanceof Element && target.matches("input:not([type=range])");

/**
 * Keeps events on a control from the editor. Keys that type no text go through, to listenToKeys.
 *
 * @param {HTMLElement} control
 */
export function keepEvents(control) {
  for (const type of CONTROL_EVENTS)
    control.addEventListener(type, (event) => {
      if (type !== "keydown" || takesText(event.target)) event.stopPropagation();
    });
}

/**
 * Runs an action for each key pressed in an element, but in an input of text. Such keys do not reach the editor.
 *
 * @param {HTMLElement} element
 * @param {Record<string, () => void>} actions by key
 */
export function listenToKeys(element, actions) {
  element.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (takesText(target) || !actions[key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    if (key === " " && target instanceof HTMLButtonElement) return; // the key presses the button
    event.preventDefault();
    actions[key]();
  });
}
