import { graphToPrompt, selectedNodes, toast } from "./lib/editor.js";
import { executionIds } from "./lib/ids.js";
import { divert, listen, queuePrompt } from "./lib/server.js";

/**
 * Verify: a button beside a selected loader, and an entry of its menu. It queues the loader, what it needs, and Verify
 * Model, and shows on the loader what that says. The workflow stays as it is.
 */

const COMMAND = "SelfForcing.Verify";
const LOADERS = ["SFLoadModel", "SFFromModel"];
const PREFIX = "sf-verify-"; // of the ids under which the server runs Verify Model

/** Loaders by the id of their Verify Model. @type {Map<string, ComfyNode>} */
const asked = new Map();

/** Certificates of the latest prompts, by the id of their Verify Model. @type {Map<string, {prompt: string, text: string}>} */
const certificates = new Map();

/** @param {any} node */
const isLoader = (node) => LOADERS.includes(node?.constructor?.comfyClass);

/**
 * Returns the nodes of a prompt that a node needs, itself included.
 *
 * @param {Record<string, {inputs: Record<string, any>}>} prompt
 * @param {string} id
 * @returns {Record<string, any>}
 */
export function neededBy(prompt, id) {
  /** @type {Record<string, any>} */
  const needed = {};
  const open = [id];
  while (open.length) {
    const one = /** @type {string} */ (open.pop());
    if (needed[one] || !prompt[one]) continue;
    needed[one] = prompt[one];
    for (const value of Object.values(prompt[one].inputs)) if (Array.isArray(value)) open.push(String(value[0]));
  }
  return needed;
}

/**
 * The id of the Verify Model of a loader. A colon would name a node in a subgraph.
 *
 * @param {string} loader
 */
const idOf = (loader) => PREFIX + String(loader).replaceAll(":", "_");

/**
 * @param {ComfyNode} node
 * @param {Translate} t
 */
async function verify(node, t) {
  try {
    const { output, workflow } = await graphToPrompt();
    const loader = executionIds(node).find((id) => output[id]);
    if (!loader) throw new Error(t("verify.notRun"));
    const id = idOf(loader);
    const inputs = { model: [loader, 0], case_only: false, filename_prefix: "self_forcing/certificate" };
    asked.set(id, node);
    await queuePrompt({ output: { ...neededBy(output, loader), [id]: { class_type: "SFVerify", inputs } }, workflow });
    node.onExecuted?.({ sf_text: [t("verify.queued")] });
  } catch (error) {
    toast("error", t("verify.label"), error instanceof Error ? error.message : String(error));
  }
}

/**
 * Returns what the extension adds to the editor for it.
 *
 * @param {Translate} t
 */
export function verifying(t) {
  divert("progress_text", ({ nodeId, text } = {}) => show(nodeId, text));
  listen("executed", ({ node, output, prompt_id: prompt }) => {
    const text = output?.sf_text?.[0];
    if (show(node, text)) certificates.set(node, { prompt, text });
    // of a loader that was not run again, a newer ComfyUI sends the old text at the end; the editor takes it after us
    const certificate = certificates.get(idOf(node));
    if (certificate && certificate.prompt === prompt) queueMicrotask(() => show(idOf(node), certificate.text));
  });
  const label = t("verify.label");
  return {
    commands: [
      {
        id: COMMAND,
        label,
        icon: "pi pi-verified",
        function: () => Promise.all(selectedNodes().filter(isLoader).map((node) => verify(node, t))),
      },
    ],
    /** @param {any} item */
    getSelectionToolboxCommands: (item) => (isLoader(item) ? [COMMAND] : []),
    /** @param {ComfyNode} node */
    getNodeMenuItems: (node) => (isLoader(node) ? [{ content: label, callback: () => verify(node, t) }] : []),
  };
}

/**
 * Shows a text on the loader that was asked. Returns whether there is one.
 *
 * @param {string} id
 * @param {string} text
 */
function show(id, text) {
  const node = asked.get(id);
  if (node && typeof text === "string") node.onExecuted?.({ sf_text: [text] });
  return node !== undefined;
}
