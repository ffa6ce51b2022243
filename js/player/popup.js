import { make } from "../lib/dom.js";
import { keepEvents } from "./keyboard.js";

/** A panel that a button opens. It lies above the whole page, so that the node does not cut it and zoom does not shrink it. */

const GAP = 4; // pixels to its button
const ROOM = 280; // pixels above the button for which it opens upwards

/**
 * Makes the panel of a button. Put both into the page; the button opens and closes the panel.
 *
 * @param {HTMLButtonElement} button
 * @param {string} label
 * @param {(panel: HTMLElement) => void} fill called each time before it opens
 */
export function createPopup(button, label, fill) {
  const panel = make("div", { className: "sf-popup", popover: "auto", role: "dialog", "aria-label": label });
  button.popoverTargetElement = panel;
  button.setAttribute("aria-haspopup", "dialog");
  keepEvents(panel);
  button.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isOpen(panel)) return; // the editor takes the key otherwise, for leaving a subgraph
    event.stopPropagation();
    close(panel);
  });
  panel.addEventListener("beforetoggle", (event) => {
    const opens = /** @type {ToggleEvent} */ (event).newState === "open";
    button.setAttribute("aria-expanded", String(opens));
    if (!opens) return;
    fill(panel);
    place(panel, button.getBoundingClientRect());
  });
  panel.addEventListener("toggle", () => {
    if (isOpen(panel)) itemsOf(panel)[0]?.focus({ preventScroll: true });
    else panel.replaceChildren(); // what it says may not hold any longer
  });
  panel.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the player's own keys do nothing here
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || /** @type {Element} */ (event.target).matches("input[type=number], textarea")) return;
    event.preventDefault();
    const items = itemsOf(panel);
    items[(items.indexOf(/** @type {HTMLElement} */ (document.activeElement)) + step + items.length) % items.length]?.focus();
  });
  return panel;
}

/** @param {HTMLElement} panel */
export const isOpen = (panel) => panel.matches(":popover-open");

/** @param {HTMLElement} panel */
export const close = (panel) => isOpen(panel) && panel.hidePopover();

/** @param {HTMLElement} panel */
const itemsOf = (panel) => [.../** @type {NodeListOf<HTMLElement>} */ (panel.querySelectorAll("button:enabled, input:enabled"))];

/** @type {(panel: HTMLElement, button: DOMRect) => void} */
function place(panel, { top, bottom, left, right }) {
  const [width, height] = [document.documentElement.clientWidth, document.documentElement.clientHeight];
  const upwards = top > Math.min(ROOM, height - bottom);
  const rightwards = left < width / 3;
  Object.assign(panel.style, {
    top: upwards ? "auto" : `${bottom + GAP}px`,
    bottom: upwards ? `${height - top + GAP}px` : "auto",
    left: rightwards ? `${Math.max(GAP, left)}px` : "auto",
    right: rightwards ? "auto" : `${Math.max(GAP, width - right)}px`,
    maxHeight: `${(upwards ? top : height - bottom) - 2 * GAP}px`,
  });
}
