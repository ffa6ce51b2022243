import { lengthOf } from "./lib/chunk_length.js";
import { after, locale, originOf } from "./lib/editor.js";
import { numberOf, setLabel, widgetOf } from "./lib/widgets.js";
import { formatSecond } from "./lib/format.js";
import { translator } from "./lib/i18n.js";
import { listen } from "./lib/server.js";

/** The length that a Stream Video really makes, in whole chunks, in the label of its `seconds` before Run. */

/** Latent frames of a chunk of the tiny demo, by its weights. @type {Record<string, number>} */
const TINY = { "self forcing": 3, teacher: 3, "frame by frame": 1 };

/**
 * Says in the label of `seconds` how long the video will be, where that differs and the graph tells it.
 *
 * @param {ComfyNode} node a Stream Video
 */
export function sayLength(node) {
  const t = translator(locale());
  const update = () => {
    if (!node.graph) return; // it is being made, or gone
    const [seconds, fps] = [numberOf(node, "seconds"), numberOf(node, "fps")];
    const rollout = rolloutOf(node);
    const made = seconds && fps && rollout ? lengthOf(seconds, fps, rollout) : null;
    const differs = made && Math.abs(made.seconds - Number(seconds)) > 0.05;
    const values = { seconds: formatSecond(Number(made?.seconds.toFixed(1))), n: made?.chunks };
    setLabel(node, "seconds", differs ? t("player.willMake", values) : null);
  };
  for (const name of ["seconds", "fps"]) {
    const widget = widgetOf(node, name);
    if (widget) after(widget, "callback", update);
  }
  after(node, "onConfigure", () => queueMicrotask(update));
  after(node, "onConnectionsChange", () => queueMicrotask(update));
  const stop = listen("graphChanged", () => (node.graph ? update() : stop())); // settings further back
  after(node, "onRemoved", () => stop());
}

/**
 * The rollout of a node's session as far as the graph tells it, else null.
 *
 * @param {ComfyNode} node
 * @returns {import("./lib/chunk_length.js").Rollout | null}
 */
function rolloutOf(node) {
  let isEmpty = true;
  const seen = new Set();
  for (let at = originOf(node, "session")?.node; at && !seen.has(at); at = originOf(at, "session")?.node) {
    seen.add(at);
    if (at.type === "SFStartFromImages") isEmpty = false;
    else if (at.type === "SFSession") {
      const chunk = chunkOf(at);
      return chunk && { ...chunk, isEmpty };
    } else if (at.type !== "SFSwitchPrompt") return null;
  }
  return null;
}

/**
 * @param {ComfyNode} session
 * @returns {{chunk: number, first: number} | null}
 */
function chunkOf(session) {
  const settings = originOf(session, "settings")?.node;
  if (!settings) {
    const model = originOf(session, "model")?.node;
    const length = model?.type === "SFLoadTiny" && TINY[String(widgetOf(model, "weights")?.value)];
    return length ? { chunk: length, first: length } : null;
  }
  const chunk = settings.type === "SFRolloutSettings" ? numberOf(settings, "chunk_frames") : null;
  const first = numberOf(settings, "first_chunk_frames");
  return chunk && first !== null ? { chunk, first: first || chunk } : null;
}
