import { verifierOf } from "./certificates.js";
import { graphToPrompt, selectedNodes, toast } from "./lib/editor.js";
import { executionIds } from "./lib/ids.js";
import { queuePrompt } from "./lib/server.js";

/**
 * Verify: a button beside a selected loader, and an entry of its menu. It queues the loader, what it needs, and Verify
 * Model, and shows on the loader what that says. The workflow stays as it is.
 */

const COMMAND = "SelfForcing.Verify";
const LOADERS = ["SFLoadModel", "SFFromModel"];

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
 * @param {ComfyNode} node
 * @param {Translate} t
 * @param {(loader: string, text: string) => void} say
 */
async function verify(node, t, say) {
  try {
    const { output, workflow } = await graphToPrompt();
    const loader = executionIds(node).find((id) => output[id]);
    if (!loader) throw new Error(t("verify.notRun"));
    const id = verifierOf(loader);
    const inputs = { model: [loader, 0], case_only: false, filename_prefix: "self_forcing/certificate" };
    await queuePrompt({ output: { ...neededBy(output, loader), [id]: { class_type: "SFVerify", inputs } }, workflow });
    say(loader, t("verify.queued"));
  } catch (error) {
    toast("error", t("verify.label"), error instanceof Error ? error.message : String(error));
  }
}

/**
 * Returns what the extension adds to the editor for it.
 *
 * @param {Translate} t
 * @param {(loader: string, text: string) => void} say shows a text on a loader until the run says more
 */
export function verifying(t, say) {
  const label = t("verify.label");
  return {
    commands: [
      {
        id: COMMAND,
        label,
        icon: "pi pi-verified",
        function: () => Promise.all(selectedNodes().filter(isLoader).map((node) => verify(node, t, say))),
      },
    ],
    /** @param {any} item */
    getSelectionToolboxCommands: (item) => (isLoader(item) ? [COMMAND] : []),
    /** @param {ComfyNode} node */
    getNodeMenuItems: (node) => (isLoader(node) ? [{ content: label, callback: () => verify(node, t, say) }] : []),
  };
}
