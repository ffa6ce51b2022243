import { after, locale } from "./lib/editor.js";
import { translatedNote } from "./lib/i18n.js";

/** Notes of templates: in the language of the editor, and in the colours of its theme. */

const NOTE = "MarkdownNote";

/**
 * Puts the notes of a workflow that is about to be loaded into the language of the editor.
 *
 * @param {{nodes?: {type: string, widgets_values?: unknown}[]}} workflow
 */
export function translateNotes({ nodes = [] }) {
  for (const { type, widgets_values: values } of nodes)
    if (type === NOTE && Array.isArray(values)) values[0] = translatedNote(String(values[0]), locale());
}

/**
 * Lets a note without a colour stay so. The editor does not write an empty colour, and gives a note that has none written
 * the yellow of its type: after an undo, or when the workflow is opened again.
 *
 * @param {ComfyNode} node
 */
export function keepPlain(node) {
  if (node.type !== NOTE || node.color !== "") return;
  after(node, "onSerialize", (/** @type {Record<string, unknown>} */ saved) => {
    for (const colour of ["color", "bgcolor"]) if (node[colour] === "") saved[colour] = "";
  });
}
