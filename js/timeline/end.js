import { originOf, targetsOf } from "../lib/editor.js";
import { numberOf } from "../lib/widgets.js";

/**
 * The second at which the longest video ends that a Prompt Timeline is wired to; 0 if the graph does not tell it, as with a
 * video that begins with a loaded session or given images: rows count from its beginning.
 *
 * @param {ComfyNode} node
 */
export function endOf(node) {
  if (!node.graph) return 0; // it is being made, or gone
  const streams = targetsOf({ node, slot: 0 }).filter(beginsEmpty);
  return Math.max(0, ...streams.map((stream) => numberOf(stream, "seconds") ?? 0));
}

/** @param {ComfyNode} stream */
function beginsEmpty(stream) {
  const seen = new Set();
  let at = originOf(stream, "session")?.node;
  for (; at?.type === "SFSwitchPrompt" && !seen.has(at); at = originOf(at, "session")?.node) seen.add(at);
  return at?.type === "SFSession";
}
