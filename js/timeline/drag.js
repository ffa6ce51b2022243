const STILL = 3; // pixels that a press may move and be no drag

/**
 * Lets something be dragged sideways, without listeners anywhere but on it: it keeps the pointer while it is pressed.
 *
 * @param handle what is pressed
 * @param axis the element whose width is 1
 * @param start called when it begins to be dragged; false: not now
 * @param move called with how far it is from where it was pressed, as a share of the axis, and the event
 * @param end called with whether it was dropped; otherwise nothing is to come of it
 * @returns what ends a drag at once, as Escape does
 */
export function draggable(handle, axis, { start, move, end }) {
  let pressed = null; // {x, id, moving}

  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = { x: event.clientX, id: event.pointerId, moving: false };
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pressed?.id) return;
    const far = event.clientX - pressed.x;
    if (!pressed.moving && (Math.abs(far) < STILL || start() === false)) return;
    pressed.moving = true;
    // the editor scales the element: its width on the screen is what counts
    move(far / axis.getBoundingClientRect().width, event);
  });
  handle.addEventListener("pointerup", (event) => event.pointerId === pressed?.id && finish(true));
  handle.addEventListener("pointercancel", () => finish(false));

  function finish(dropped) {
    const moving = pressed?.moving;
    pressed = null;
    if (moving) end(dropped);
  }
  return () => finish(false);
}
