import { make } from "./lib/dom.js";
import { after } from "./lib/editor.js";
import { FONT } from "./lib/looks.js";
import { MARGIN, addElement } from "./lib/widgets.js";

/** A node's text, in an element on the node. */

const STYLE =
  `font: 12px/1.4 ${FONT}; color: var(--input-text, #ddd); white-space: pre-wrap; overflow-wrap: break-word;` +
  "user-select: text;";
const KEYBOARD = ["keydown", "keyup", "copy"]; // the editor would take a copied text for copied nodes

/** The text of one node; its element is made when there is one. */
export class Words {
  #node;
  #text = "";
  /** @type {WordsElement | null} */
  #element = null;

  /** @param {ComfyNode} node */
  constructor(node) {
    this.#node = node;
  }

  get isEmpty() {
    return this.#text === "";
  }

  /** @param {string} text that stays */
  show(text) {
    this.#text = text;
    this.#draw(text);
  }

  /** @param {string} text that holds while the node works */
  showProgress(text) {
    this.#draw(text);
  }

  /** Shows again what stays. */
  endProgress() {
    this.#draw(this.#text);
  }

  /** @param {string} text */
  #draw(text) {
    if (text) this.#element ??= new WordsElement(this.#node);
    this.#element?.show(text);
  }
}

class WordsElement {
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
