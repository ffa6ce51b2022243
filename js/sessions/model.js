import { formatBytes } from "../lib/format.js";

/** The sessions panel without its page: what it says and decides. See panel.js. */

/**
 * @typedef {"live" | "saved" | "ended" | "interrupted" | "damaged"} Kind
 * @typedef {"model" | "vae" | "clip"} SharedInput
 *
 * @typedef {object} Entry one of `sessions`, as docs/live.md describes them
 * @property {string} name
 * @property {"live" | "saved" | "ended" | "interrupted"} kind
 * @property {string | null} node_id
 * @property {number | null} chunks
 * @property {number | null} frames
 * @property {number | null} width
 * @property {number | null} height
 * @property {string | null} model its fingerprint
 * @property {string} prompt the one at its end; "" if it is not known
 * @property {number | null} seconds
 * @property {string} model_name "" if it is not known
 * @property {string} workflow its name; "" if it is not known
 * @property {string} [run] of a live session
 * @property {string} [prompt_id] of a live session
 * @property {number | null} bytes
 * @property {number | null} modified seconds since 1970
 * @property {string | null} [picture] a path
 * @property {string | null} [error]
 */

/**
 * Returns a key that names an entry for as long as its card may stay the same one.
 *
 * @param {Entry} entry
 */
export const keyOf = (entry) => JSON.stringify([entry.kind, entry.error != null, entry.name]);

/**
 * @param {Entry} entry
 * @returns {Kind}
 */
export const kindOf = (entry) => (entry.error != null ? "damaged" : entry.kind);

/**
 * Returns the name of a saved session without its ending; for others, whose names say less, the prompt.
 *
 * @param {Entry} entry
 * @param {Translate} t
 */
export function titleOf(entry, t) {
  if (entry.kind !== "saved" && entry.prompt) return entry.prompt;
  return entry.kind === "live" ? t("sessions.node", { id: entry.node_id }) : nameOf(entry);
}

/**
 * Returns the name of a session's file without its ending.
 *
 * @param {Pick<Entry, "name">} entry
 */
export const nameOf = (entry) => entry.name.replace(/\.session$/i, "");

/**
 * Returns the lines of a card: its prompt if that is no part of its title, length and size, model and workflow, file; for a
 * damaged file what is wrong with it.
 *
 * @param {Entry} entry
 * @param {Translate} t
 * @param {string} locale
 */
export function factsOf(entry, t, locale) {
  const file = [];
  if (entry.bytes != null) file.push(formatBytes(entry.bytes));
  if (entry.modified != null) {
    const modified = new Date(1000 * entry.modified);
    file.push(modified.toLocaleString(locale, { dateStyle: "short", timeStyle: "short" }));
  }
  const { error, chunks, width, height, model, prompt } = entry;
  const seconds = t("sessions.seconds", { n: (entry.seconds ?? 0).toFixed(1) });
  const session = [seconds, t("sessions.chunks", { n: chunks }), `${width} × ${height}`];
  const source = [entry.model_name || t("sessions.model", { model }), ...(entry.workflow ? [entry.workflow] : [])];
  const said = titleOf(entry, t).startsWith(prompt) ? [] : [prompt];
  const lines = error != null ? [[error], file] : [said, session, source, file];
  return lines.filter((parts) => parts.length).map((parts) => parts.join(" · "));
}

/**
 * Whether the list of sessions changes with this state of a run.
 *
 * @param {Pick<import("../lib/messages.js").RunState, "state" | "node_id">} state
 * @param {Entry[]} entries
 */
export function isNews(state, entries) {
  if (["ended", "interrupted", "failed"].includes(state.state)) return true;
  return !entries.some((entry) => entry.kind === "live" && entry.node_id === state.node_id);
}

/** Nodes that show where an input of a new node comes from. @type {Record<SharedInput, string[]>} */
const USERS = {
  model: ["SFSession", "SFLoadSession"],
  vae: ["SFStreamVideo", "SFDecodeChunks", "SFStartFromImages"],
  clip: ["SFStreamVideo", "SFPromptTimeline", "CLIPTextEncode"],
};

/**
 * Returns the output that every node of the graph has wired to an input; null if none is wired, or they differ.
 *
 * @param {ComfyNode[]} nodes
 * @param {SharedInput} input
 * @param {(node: ComfyNode, input: string) => Origin | null} originOf
 */
export function soleOrigin(nodes, input, originOf) {
  const origins = nodes
    .filter((node) => USERS[input].includes(node.type))
    .flatMap((node) => originOf(node, input) ?? []);
  const [first] = origins;
  return first && origins.every(({ node, slot }) => node === first.node && slot === first.slot) ? first : null;
}
