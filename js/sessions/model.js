/**
 * What the sessions panel says and decides, without a page: see panel.js. An entry is one of `sessions` as
 * docs/live.md has them.
 */

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/** A number of bytes as people say it. */
export function bytesInWords(bytes) {
  let unit = 0;
  for (; bytes >= 1000 && unit < UNITS.length - 1; unit++) bytes /= 1024;
  return `${unit ? bytes.toFixed(1) : bytes} ${UNITS[unit]}`;
}

/** Puts values in the place of {their names}. */
export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

/** Names an entry for as long as its card may stay the same one. */
export const keyOf = (entry) => JSON.stringify([entry.kind, entry.error != null, entry.name]);

/** A file's name as people say it; of a live one the node. */
export function titleOf(entry, said) {
  if (entry.kind === "live") return fill(said.sessionsNode, { id: entry.node_id });
  return entry.name.replace(/\.session$/i, "");
}

/** Lines about an entry: of what it holds, of the file, of the model; or of what is wrong with it. */
export function factsOf(entry, said, locale) {
  const file = [
    entry.bytes == null ? "" : bytesInWords(entry.bytes),
    entry.modified == null
      ? ""
      : new Date(1000 * entry.modified).toLocaleString(locale, { dateStyle: "short", timeStyle: "short" }),
  ];
  const held = [fill(said.sessionsLength, entry), `${entry.width} × ${entry.height}`];
  const lines = entry.error == null ? [held, file, [fill(said.sessionsModel, entry)]] : [[entry.error], file];
  return lines.map((parts) => parts.filter(Boolean).join(" · ")).filter(Boolean);
}

/** The name under which a live session is kept. */
export const nameToKeep = (entry) => `fork of node ${entry.node_id}`.replace(/[^\w .-]/g, "-");

/** Whether a message about a run says that there is something new to list. */
export function isNews(state, entries) {
  if (["ended", "interrupted", "failed"].includes(state.state)) return true;
  return !entries.some((entry) => entry.kind === "live" && entry.node_id === String(state.node_id));
}

/** Where each input of new nodes may come from: what the graph's own nodes of these classes are wired to. */
const USERS = {
  model: ["SFSession", "SFLoadSession"],
  vae: ["SFStreamVideo", "SFDecodeChunks", "SFStartFromImages"],
  clip: ["SFStreamVideo", "SFPromptTimeline", "CLIPTextEncode"],
};

/**
 * The one output that all nodes of the graph use for such an input; null if there is none, or a choice.
 *
 * @param originOf {(node, input: string) => {node, slot} | null}
 */
export function soleOrigin(nodes, input, originOf) {
  const found = nodes
    .filter((node) => USERS[input].includes(node.type))
    .map((node) => originOf(node, input))
    .filter(Boolean);
  const [first] = found;
  return first && found.every(({ node, slot }) => node === first.node && slot === first.slot) ? first : null;
}
