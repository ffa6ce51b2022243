const STILL = 3; // pixels that a press may move without being a drag

/**
 * Lets an element be dragged sideways. The listeners are on the element itself, which captures the pointer while it is
 * pressed. Returns the function that cancels a drag, as Escape does.
 *
 * @param {HTMLElement} handle is pressed
 * @param {HTMLElement} axis an element as wide as the axis
 * @param {object} on
 * @param {() => void} on.start called when a drag begins
 * @param {(share: number, event: PointerEvent) => void} on.move called with the distance from where it was pressed, as a
 *   share of the axis
 * @param {(dropped: boolean) => void} on.end called with false if the drag was cancelled
 */
export function draggable(handle, axis, { start, move, end }) {
  /** @type {{x: number, id: number, moving: boolean} | null} */
  let pressed = null;

  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = { x: event.clientX, id: event.pointerId, moving: false };
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pressed?.id) return;
    const distance = event.clientX - pressed.x;
    if (!pressed.moving && Math.abs(distance) < STILL) return;
    if (!pressed.moving) start();
    pressed.moving = true;
    // the editor scales the axis: its width on the screen counts
    move(distance / axis.getBoundingClientRect().width, event);
  });
  handle.addEventListener("pointerup", (event) => event.pointerId === pressed?.id && finish(true));
  handle.addEventListener("pointercancel", () => finish(false));

  /** @param {boolean} dropped */
  function finish(dropped) {
    const moving = pressed?.moving;
    pressed = null;
    if (moving) end(dropped);
  }
  return () => finish(false);
}
