/**
 * Texts of nodes: what they say while they work, and in their results, where it stays after the run.
 *
 * The editor hands results to whichever node of that id is open. Here each text is of the tab that queued the run, and is
 * kept for nodes that undo, or another workflow's tab, makes anew.
 */

/**
 * @typedef {object} TextView the element with a node's text, as Texts needs it
 * @property {boolean} isEmpty
 * @property {(text: string) => void} show
 * @property {(text: string) => void} showProgress
 * @property {() => void} endProgress
 *
 * @typedef {{sf_text?: string[], sf_text_in?: Record<string, string>[]}} Output what a node returned for the editor
 *   sf_text_in: the texts by language
 * @typedef {{node: string, prompt_id: string, output: Output | null}} Result
 */

export class Texts {
  /** @type {Map<ComfyNode, TextView>} */
  #views = new Map();
  /** @type {Map<string, {tab: string, id: string, text: string}>} by tab and node */
  #texts = new Map();
  #idsOf;
  #tabs;
  #language;

  /**
   * @param {object} editor
   * @param {(node: ComfyNode) => string[]} editor.idsOf execution ids of a node
   * @param {Pick<import("./player/tabs.js").Tabs, "current" | "of">} editor.tabs
   * @param {() => string} editor.language such as "zh"
   */
  constructor({ idsOf, tabs, language }) {
    this.#idsOf = idsOf;
    this.#tabs = tabs;
    this.#language = language;
  }

  /** @type {(node: ComfyNode, view: TextView) => void} */
  add(node, view) {
    this.#views.set(node, view);
  }

  /** @param {ComfyNode} node */
  remove(node) {
    this.#views.delete(node);
  }

  /** Gives each node without a text what was kept for it, now that its tab is open. */
  offerAll() {
    const { current } = this.#tabs;
    for (const { tab, id, text } of this.#texts.values())
      if (tab === current) for (const view of this.#viewsOf(id)) if (view.isEmpty) view.show(text);
  }

  /**
   * Shows what a node says while it works. Returns whether a node of the pack, of that id, is open.
   *
   * @type {(id: string, text: string, tab: string | null) => boolean}
   */
  progress(id, text, tab) {
    const views = this.#viewsOf(id);
    if (tab === this.#tabs.current) for (const view of views) view.showProgress(text);
    return views.length > 0;
  }

  /** Drops what nodes said while they worked: the run has ended. */
  endProgress() {
    for (const view of this.#views.values()) view.endProgress();
  }

  /**
   * Shows the text in a result, perhaps one that ComfyUI had kept: in another language, if it is of another page.
   *
   * @param {Result} result
   */
  result({ node, prompt_id, output }) {
    if (output?.sf_text) this.say(node, textOf(output, this.#language()), this.#tabs.of(prompt_id) ?? this.#tabs.current);
  }

  /**
   * Shows a text on a node, and keeps it.
   *
   * @type {(id: string, text: string, tab?: string | null) => void}
   */
  say(id, text, tab = this.#tabs.current) {
    if (tab === null) return;
    this.#texts.set(`${tab} ${id}`, { tab, id, text });
    if (tab === this.#tabs.current) for (const view of this.#viewsOf(id)) view.show(text);
  }

  /** @param {string} id */
  #viewsOf(id) {
    return [...this.#views].flatMap(([node, view]) => (this.#idsOf(node).includes(id) ? [view] : []));
  }
}

/**
 * The text of a result in a language. A node that ran for each entry of a list has one a run.
 *
 * @param {Output} output
 * @param {string} language
 */
export function textOf({ sf_text = [], sf_text_in = [] }, language) {
  const languages = [language, language.split("-")[0], "en"];
  const texts = sf_text.map((text, k) => languages.map((one) => sf_text_in[k]?.[one]).find((one) => one !== undefined) ?? text);
  return texts.filter(Boolean).join("\n");
}
