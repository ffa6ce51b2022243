import { app } from "../../../scripts/app.js";
import { make } from "./dom.js";
import { redraw } from "./editor.js";
import { removeWidget } from "./widgets.js";

/** The picture that the editor itself shows on a node of a run. See editor.js. */

/**
 * Lets subgraphs show a node's previews outside, as they do for a node that has a widget of such a name.
 *
 * @param {ComfyNode} node
 */
export function offerPreview(node) {
  const options = { serialize: false, hidden: true, canvasOnly: true };
  const widget = { name: "$$sf-preview", type: "sf_preview", value: "", options, hidden: true, serialize: false };
  node.addCustomWidget?.({ ...widget, draw: () => {}, computeSize: () => [0, -4] }); // -4: the gap below it
}

/** CSS for Nodes 2.0, which draws a node's preview in its body: the player shows more. */
const NO_PREVIEW = `
[data-testid^="node-body-"]:has(.sf-player) > img, [data-testid^="node-body-"]:has(.sf-player) > img + div { display: none; }
`;

/** Adds the CSS that nodes with a player need outside of it. */
export const hidePreviews = () => document.head.append(make("style", { textContent: NO_PREVIEW }));

/**
 * Removes the preview from a node whose player is on the screen again: the server sent it while it was not.
 *
 * @param {ComfyNode} node
 */
export function removePreview(node) {
  for (const key of [`${node.id}`, `${node.graph.id}:${node.id}`]) delete app.nodePreviewImages?.[key];
  if (!node.imgs) return;
  node.imgs = undefined;
  removeWidget(node, "$$canvas-image-preview");
  redraw();
}
