import { after, loading, locale, originOf } from "./lib/editor.js";
import { setLabel, setWidget, widgetOf } from "./lib/widgets.js";
import { translator } from "./lib/i18n.js";
import { listen } from "./lib/server.js";

/** `fps` of a new node follows the model before it, as long as nobody has chosen a rate. */

/** Of loaders, as the server recognised their files. @type {WeakMap<ComfyNode, number>} */
const rates = new WeakMap();

/** @type {Set<() => void>} */
const followers = new Set();

const TINY = 16; // of the tiny demo

/**
 * Notes the frames a second of the model in the file that a loader names.
 *
 * @param {ComfyNode} loader
 * @param {unknown} fps undefined: not known
 */
export function noteRate(loader, fps) {
  if (typeof fps === "number") rates.set(loader, fps);
  else rates.delete(loader);
  for (const update of followers) update();
}

/**
 * Lets `fps` of a new node be the rate of the model before it, and says so in its label. A node of a workflow keeps its
 * value, and so does one whose value was set or is wired.
 *
 * @param {ComfyNode} node
 */
export function followRate(node) {
  const fps = widgetOf(node, "fps");
  if (!fps) return;
  let chosen = false;
  let writing = false;
  const t = translator(locale());

  const update = () => {
    if (chosen || loading() || !node.graph || originOf(node, "fps")) return;
    const rate = rateBefore(node);
    if (rate === null || rate === fps.value) return;
    writing = true;
    try {
      setWidget(node, "fps", rate);
    } finally {
      writing = false;
    }
    setLabel(node, "fps", t("player.fpsOfModel", { n: rate }));
  };
  const choose = () => {
    if (writing) return;
    chosen = true;
    setLabel(node, "fps", null);
  };

  after(fps, "callback", choose);
  after(node, "onConfigure", choose);
  after(node, "onConnectionsChange", () => queueMicrotask(update));
  followers.add(update);
  const stop = listen("graphChanged", update); // a preset further back
  after(node, "onRemoved", () => {
    followers.delete(update);
    stop();
  });
}

/**
 * The frames a second of the model of a node's session, null if the graph does not tell it.
 *
 * @param {ComfyNode} node
 */
function rateBefore(node) {
  const session = last(node, "session");
  if (session?.type !== "SFSession") return null;
  const settings = originOf(session, "settings")?.node;
  const model = last(session, "model");
  for (const at of [model, ...(settings ? [settings] : [])]) {
    const rate = at && (rates.get(at) ?? rateOfPreset(at));
    if (rate) return rate;
  }
  if (model?.type === "SFLoadTiny") return TINY;
  const between = originOf(session, "model")?.node;
  return between ? rateOfPreset(between) : null;
}

/**
 * The node that a chain of one kind of wire begins with.
 *
 * @param {ComfyNode} node
 * @param {string} input
 * @returns {ComfyNode | null}
 */
function last(node, input) {
  const seen = new Set();
  let found = null;
  for (let at = originOf(node, input)?.node; at && !seen.has(at); at = originOf(at, input)?.node) {
    seen.add(at);
    found = at;
  }
  return found;
}

/** @type {(node: ComfyNode) => number | null} */
function rateOfPreset(node) {
  const groups = node.constructor.nodeData?.input;
  const rate = groups?.required?.preset?.[1]?.sf_fps?.[String(widgetOf(node, "preset")?.value)];
  return typeof rate === "number" ? rate : null;
}
