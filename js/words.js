import { make } from "./lib/dom.js";
import { after } from "./lib/editor.js";
import { removeProgressText } from "./lib/previews.js";
import { MARGIN, addElement } from "./lib/widgets.js";

/** Text that a node gave in its last run: on the node, where it stays after the run. */

const STYLE =
  "font: 11px/1.4 sans-serif; color: var(--input-text, #ddd); white-space: pre-wrap; overflow-wrap: break-word;" +
  "user-select: text;";
const KEYBOARD = ["keydown", "keyup", "copy"]; // the editor would take a copied text for copied nodes

/** Texts by node, for nodes that undo or another workflow's tab makes anew. @type {Map<string, string>} */
const texts = new Map();

/**
 * Shows the text in the node's results on the node, once there is one. Returns a function that shows another text.
 *
 * @param {ComfyNode} node
 */
export function addWords(node) {
  /** @type {Words | null} */
  let words = null;
  const key = () => `${node.graph?.id} ${node.id}`;
  /** @param {string} text */
  const show = (text) => {
    if (text) words ??= new Words(node);
    words?.show(text);
  };
  after(node, "onExecuted", (/** @type {{sf_text?: string[]} | null} */ output) => {
    const text = output?.sf_text?.[0];
    if (typeof text !== "string") return;
    removeProgressText(node);
    texts.set(key(), text);
    show(text);
  });
  after(node, "onConfigure", () => {
    const text = texts.get(key());
    if (text !== undefined) show(text);
  });
  return show;
}

class Words {
  #node;
  #height = 0; // of the text
  #text = make("div");
  #element = make("div", { className: "sf-words", role: "status" }, this.#text);

  /** @param {ComfyNode} node */
  constructor(node) {
    this.#node = node;
    this.#element.style.cssText = STYLE;
    for (const type of [...KEYBOARD, "pointerdown", "mousedown", "dblclick"])
      this.#element.addEventListener(type, (event) => event.stopPropagation());
    addElement(node, "words", this.#element, () => this.#height && this.#height + MARGIN);
    const observer = new ResizeObserver(() => this.#fit());
    observer.observe(this.#text);
    after(node, "onRemoved", () => observer.disconnect());
  }

  /** @param {string} text */
  show(text) {
    this.#text.textContent = text;
    this.#fit();
  }

  /** Makes the node high enough for the whole text at its width, and takes back what a longer text had added. */
  #fit() {
    const height = this.#text.offsetHeight;
    const shown = this.#text.offsetWidth > 0; // before its first place it has no width, and a line for each letter
    if (height === this.#height || (!shown && this.#text.textContent)) return;
    const [width, now] = this.#node.size;
    // room that the user, or Nodes 2.0 when it draws, gave it beyond what it needs; a saved size has the text's in it
    const spare = this.#height ? Math.max(0, now - this.#node.computeSize()[1]) : 0;
    const least = this.#height ? 0 : now;
    this.#height = height;
    this.#element.style.minHeight = `${height}px`;
    const [wide, high] = this.#node.computeSize();
    this.#node.setSize([Math.max(width, wide), Math.max(least, high + spare)]);
    this.#node.graph?.setDirtyCanvas(true, true);
  }
}
