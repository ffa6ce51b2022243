/** The ids of Verify Model nodes that are in no graph: each verifies a loader, and what it says is shown there. */

const PREFIX = "sf-verify-";

/** The prompts of the latest certificates, by loader. @type {Map<string, string | undefined>} */
const certified = new Map();

/**
 * The id under which the server runs the Verify Model of a loader. A colon would name a node in a subgraph.
 *
 * @param {string} loader
 */
export const verifierOf = (loader) => PREFIX + loader.replaceAll(":", "_");

/** @param {string} id */
const loaderOf = (id) => (id.startsWith(PREFIX) ? id.slice(PREFIX.length).replaceAll("_", ":") : null);

/**
 * Returns what Verify Model said of a loader as if the loader had said it, and anything else as it is. Of a loader that
 * was not run again, a newer ComfyUI sends the old text at the end: it is left out, since the certificate stays.
 *
 * @template {{node: string, prompt_id?: string, output?: any}} Said
 * @param {Said} said
 * @returns {Said}
 */
export function asOfLoader(said) {
  const { node, prompt_id, output } = said;
  const loader = loaderOf(node);
  if (loader === null) return output && certified.get(node) === prompt_id ? { ...said, output: null } : said;
  if (output) certified.set(loader, prompt_id);
  return { ...said, node: loader };
}
