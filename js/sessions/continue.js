import * as editor from "../lib/editor.js";
import { freePlace } from "../lib/free_place.js";
import { translator } from "../lib/i18n.js";
import { offerValue, setWidget } from "../lib/widgets.js";
import { soleOrigin } from "./model.js";

/** Brings sessions back into the graph. Every function here is one step of the editor's undo. */

const GAP = 80; // pixels between new nodes and others; Nodes 2.0 draws them larger than their size says

/**
 * Lets the node of a run go on from a kept session, and queues the graph. For this a Load Session takes the place of what
 * gave the node its session; one that does so already gets the new file.
 *
 * @param {ComfyNode} node a Stream Video or Sample Chunks
 * @param {string} session its name in Load Session: `session` of the run's last state
 */
export function continueRun(node, session) {
  const loader = loadBefore(node, session);
  if (hasModel(loader)) editor.queue();
  else editor.toast("warn", translator(editor.locale())("sessions.wireModel"));
}

/** @type {(node: ComfyNode, session: string) => ComfyNode} */
const loadBefore = (node, session) =>
  editor.undoable(() => {
    const before = editor.originOf(node, "session");
    const model = modelBefore(node);
    const reused = before?.node.type === "SFLoadSession" && editor.targetsOf(before).length === 1;
    const loader = reused ? before.node : addLoaderBefore(node);
    setFile(loader, session);
    if (reused) return loader;
    const origin = model ?? soleOrigin(node.graph.nodes, "model", editor.originOf);
    if (origin) editor.connect(origin.node, origin.slot, loader, "model");
    editor.connect(loader, 0, node, "session");
    return loader;
  });

/**
 * Adds a Load Session with a file, in a free place.
 *
 * @param {string} session
 */
export const loadSession = (session) => editor.undoable(() => addLoader(session));

/**
 * Adds a Load Session with a file, and a Stream Video that continues it.
 *
 * @param {string} session
 */
export const continueInNewNodes = (session) =>
  editor.undoable(() => {
    const loader = addLoader(session);
    return [loader, addStream(loader)];
  });

/** Whether a Load Session has its model. @param {ComfyNode} loader */
export const hasModel = (loader) => editor.originOf(loader, "model") !== null;

/**
 * Returns the model that makes the session of a node, from the node before it that has one.
 *
 * @param {ComfyNode} node
 * @returns {Origin | null}
 */
function modelBefore(node) {
  const seen = new Set();
  for (let at = editor.originOf(node, "session"); at && !seen.has(at.node); at = editor.originOf(at.node, "session")) {
    seen.add(at.node);
    const model = editor.originOf(at.node, "model");
    if (model) return model;
  }
  return null;
}

/** @param {ComfyNode} node */
function addLoaderBefore(node) {
  const boxes = boxesOf(node.graph.nodes);
  return editor.addNode("SFLoadSession", node, (wanted) => freePlace(wanted, boxes, GAP));
}

/** @param {string} session */
function addLoader(session) {
  const others = [...editor.nodesInView()];
  const boxes = boxesOf(others);
  const loader = editor.addNode("SFLoadSession", null, ([x, y, width, height]) =>
    freePlace([x, y, 2 * width + GAP, 2 * height], boxes, GAP), // with room for a Stream Video
  );
  setFile(loader, session);
  wire(loader, "model", others);
  return loader;
}

/** @param {ComfyNode} loader */
function addStream(loader) {
  const others = editor.nodesInView().filter((node) => node !== loader);
  const stream = editor.addNode("SFStreamVideo", loader, () => [loader.pos[0] + loader.size[0] + GAP, loader.pos[1]]);
  editor.connect(loader, 0, stream, "session");
  wire(stream, "vae", others);
  wire(stream, "clip", others);
  return stream;
}

/** @type {(loader: ComfyNode, session: string) => void} */
function setFile(loader, session) {
  offerValue(loader, "file", session);
  setWidget(loader, "file", session);
}

/**
 * Wires an input if the graph leaves no choice; otherwise the user has to.
 *
 * @param {ComfyNode} node
 * @param {import("./model.js").SharedInput} input
 * @param {ComfyNode[]} others
 */
function wire(node, input, others) {
  const origin = soleOrigin(others, input, editor.originOf);
  if (origin && node.inputs.some(({ name }) => name === input)) editor.connect(origin.node, origin.slot, node, input);
}

/** @param {ComfyNode[]} nodes */
const boxesOf = (nodes) => nodes.map(({ pos, size }) => /** @type {Box} */ ([pos[0], pos[1], size[0], size[1]]));
