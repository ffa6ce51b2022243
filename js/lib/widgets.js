import { app } from "../../../scripts/app.js";
import { after, graphInView, growTo, originOf, redraw } from "./editor.js";

/** Widgets of nodes in ComfyUI's editor, and elements of the page as widgets. See editor.js. */

/**
 * @param {ComfyNode} node
 * @param {string} name
 */
export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/**
 * The number in a widget; null if it is wired, so that only the run knows it.
 *
 * @type {(node: ComfyNode, name: string) => number | null}
 */
export function numberOf(node, name) {
  const value = widgetOf(node, name)?.value;
  return typeof value === "number" && !originOf(node, name) ? value : null;
}

/**
 * Sets a widget's value as a user does.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {unknown} value
 */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  widget.value = value;
  widget.callback?.(value, app.canvas, node); // Nodes 2.0 draws the value that the callback gets
  redraw();
}

/** Labels of widgets as they were before `setLabel`. @type {WeakMap<ComfyWidget, string | undefined>} */
const labels = new WeakMap();

/**
 * Sets the label of a widget, which no workflow keeps.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {string | null} label null: the one that it had
 */
export function setLabel(node, name, label) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  if (!labels.has(widget)) labels.set(widget, widget.label);
  const wanted = label ?? labels.get(widget);
  if (widget.label === wanted) return;
  widget.label = wanted;
  redraw();
}

/**
 * Lets a node's list offer a value that the server did not know when it made the list.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {string} value
 */
export function offerValue(node, name, value) {
  const options = widgetOf(node, name)?.options;
  if (Array.isArray(options?.values) && !options.values.includes(value)) options.values = [value, ...options.values];
}

/** Pixels that the classic canvas leaves above and below an element, together. */
export const MARGIN = 20;

/**
 * Adds a widget that is drawn by its own element, alike in the classic canvas and in Nodes 2.0. Neither prompts nor saved
 * workflows hold it. The element goes away with its node.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {() => number} height in pixels, at least, with the editor's margin
 */
export function addElement(node, name, element, height) {
  // an older editor lets a new element stick out to the right, and in Nodes 2.0 gives it no height of its own
  const minHeight = `${Math.max(0, height() - MARGIN)}px`;
  Object.assign(element.style, { boxSizing: "border-box", minWidth: 0, minHeight, overflow: "hidden" });
  const widget = node.addDOMWidget(name, `sf_${name}`, element, {
    serialize: false, // not in prompts
    hideOnZoom: false,
    hideInPanel: true, // a newer editor lists a node's widgets in a panel too, where the element could not be shown
    getMinHeight: height,
  });
  widget.serialize = false; // not in saved workflows
  keepPlace(node, name, element);
  growTo(node, node.computeSize()); // the classic canvas leaves a new node as high as it was without the element
}

/** Parents of elements whose nodes were removed a moment ago. @type {Map<string, HTMLElement | null>} */
const parents = new Map();

/**
 * Removes an element with its node. Undo makes all nodes anew under their old ids; Nodes 2.0 then keeps the parent of each
 * element and leaves it as it was, so the new element is put into the parent of the old one.
 *
 * @param {ComfyNode} node
 * @param {string} name
 * @param {HTMLElement} element
 */
function keepPlace(node, name, element) {
  const key = () => `${node.id} ${name}`;
  after(node, "onRemoved", () => {
    const [id, parent] = [key(), element.parentElement];
    element.remove();
    parents.set(id, parent);
    setTimeout(() => parents.get(id) === parent && parents.delete(id), 1000);
  });
  const restore = () => {
    const parent = parents.get(key());
    if (!parent) return;
    const put = () => element.isConnected || !parent.isConnected || parent.firstChild || parent.append(element);
    requestAnimationFrame(() => requestAnimationFrame(put)); // after the editor has drawn its own elements
  };
  restore(); // an element may be added to a node that has its id already
  after(node, "onConfigure", restore);
}

/**
 * Whether the user can see the element of a node's widget, at least after moving the canvas: it is not in a subgraph that
 * is closed, nor behind App mode unless it is a part of the app.
 *
 * @param {ComfyNode} node
 * @param {string} name
 */
export function isOnScreen(node, name) {
  if (widgetOf(node, name)?.element?.checkVisibility()) return true;
  return node.graph === graphInView() && isCanvasOnScreen();
}

/** Whether the canvas is on the screen; App mode is in its place. */
export const isCanvasOnScreen = () => Boolean(app.canvas.canvas?.checkVisibility());

/** @type {(node: ComfyNode, name: string) => void} */
export function removeWidget(node, name) {
  const at = node.widgets?.findIndex((widget) => widget.name === name) ?? -1;
  if (at < 0) return;
  node.widgets?.[at].onRemove?.();
  node.widgets?.splice(at, 1);
}

/**
 * Lets Run send the value of a text widget with %date:...% and %Node.widget% replaced, as the editor does it for the file
 * names of ComfyUI's own classes.
 *
 * @param {ComfyNode} node
 * @param {string} name
 */
export function replacePatterns(node, name) {
  const widget = widgetOf(node, name);
  const replace = window.comfyAPI?.utils?.applyTextReplacements;
  if (!widget || !replace) return;
  widget.serializeValue = () => (typeof widget.value === "string" ? replace(app, widget.value) : widget.value);
}
