import { wheelCanvas } from "../lib/editor.js";

const WHEEL_OPTIONS = { capture: true, passive: false };

/**
 * Keeps keys and the pointer from the canvas. Keys with Ctrl are the editor's: undo, save, run; the middle button moves
 * the canvas.
 *
 * @param {HTMLElement} element
 */
export function keepFromCanvas(element) {
  for (const type of /** @type {const} */ (["keydown", "keyup"]))
    element.addEventListener(type, (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
  const pointing = /** @type {const} */ (["pointerdown", "pointermove", "pointerup", "mousedown", "click", "dblclick"]);
  for (const type of pointing)
    element.addEventListener(type, (event) => event.button === 1 || event.buttons === 4 || event.stopPropagation());
}

/**
 * Gives the wheel with Ctrl to `zoom`; without Ctrl the canvas gets the event. While the pointer is here, the listener is
 * on the window, since Nodes 2.0 takes the event before it reaches this element. Returns the function that removes it.
 *
 * @param {HTMLElement} element
 * @param {(event: WheelEvent) => void} zoom
 */
export function shareWheel(element, zoom) {
  /** @param {WheelEvent} event */
  const onWheel = (event) => {
    if (!event.ctrlKey || !element.contains(/** @type {Node} */ (event.target))) return;
    event.preventDefault();
    event.stopPropagation();
    zoom(event);
  };
  const stop = () => window.removeEventListener("wheel", onWheel, WHEEL_OPTIONS);
  element.addEventListener("pointerenter", () => window.addEventListener("wheel", onWheel, WHEEL_OPTIONS));
  element.addEventListener("pointerleave", stop);
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    event.stopPropagation();
    wheelCanvas(event);
  });
  return stop;
}
