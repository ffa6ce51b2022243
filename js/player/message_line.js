import { make } from "../lib/dom.js";
import { inTwo } from "../lib/format.js";
import { close, createPopup } from "./popup.js";

/** @typedef {{text: string, tone?: "plain" | "wait" | "warn"}} Message */

/** The line below the input: the first sentence of what there is to say, and the rest on demand. */
export class MessageLine {
  #text = make("span", { className: "sf-text" });
  #more = make("button", { type: "button", className: "sf-more", hidden: true });
  #whole = "";
  #hasMore = false; // than the first sentence
  #popup;
  element;

  /** @param {Translate} t */
  constructor(t) {
    this.#more.textContent = t("player.more");
    this.#popup = createPopup(this.#more, t("player.more"), (panel) =>
      panel.replaceChildren(make("p", { className: "sf-whole" }, this.#whole)),
    );
    this.element = make("div", { className: "sf-message", role: "status" }, this.#text, this.#more, this.#popup);
    new ResizeObserver(() => this.#fit()).observe(this.element);
  }

  /** @param {Message | null} message */
  show(message) {
    const { text = "", tone = "plain" } = message ?? {};
    if (this.#whole === text && this.element.dataset.tone === tone) return; // screen readers read each change aloud
    const [first, rest] = inTwo(text);
    this.#whole = text;
    this.element.dataset.tone = tone;
    this.#text.textContent = first;
    this.#text.title = first;
    this.#hasMore = rest !== "";
    this.#fit();
    close(this.#popup);
  }

  /** Offers the rest of the text where there is one, or the line is too narrow for its first sentence. */
  #fit() {
    this.#more.hidden = true; // it takes room
    this.#more.hidden = !this.#hasMore && this.#text.scrollWidth <= this.#text.clientWidth;
  }
}
