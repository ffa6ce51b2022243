import { make } from "../lib/dom.js";
import { inTwo } from "../lib/format.js";
import { createPopup } from "./popup.js";

/** @typedef {{text: string, tone?: "plain" | "wait" | "warn"}} Message */

/** The line below the input: the first sentence of what there is to say, and the rest on demand. */
export class MessageLine {
  #text = make("span", { className: "sf-text" });
  #more = make("button", { type: "button", className: "sf-more", hidden: true });
  #whole = "";
  #popup;
  element;

  /** @param {Translate} t */
  constructor(t) {
    this.#more.textContent = t("player.more");
    this.#popup = createPopup(this.#more, t("player.more"), (panel) =>
      panel.replaceChildren(make("p", { className: "sf-whole" }, this.#whole)),
    );
    this.element = make("div", { className: "sf-message", role: "status" }, this.#text, this.#more, this.#popup);
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
    this.#more.hidden = !rest && this.#text.scrollWidth <= this.#text.clientWidth;
    if (this.#popup.isConnected && this.#popup.matches(":popover-open")) this.#popup.hidePopover();
  }
}
