import { make } from "../lib/dom.js";
import { inTwo } from "../lib/format.js";

/** The note of a run: its first sentence, and the rest on demand. */
export class Note {
  #first = make("span");
  #rest = make("span");
  #summary = make("summary", {}, this.#first);
  element = make("details", { className: "sf-note", role: "status", hidden: true }, this.#summary, this.#rest);

  /** @param {string} note */
  show(note) {
    const [first, rest] = inTwo(note);
    this.element.hidden = !note;
    if (this.#first.textContent === first && this.#rest.textContent === rest) return; // screen readers read each change
    this.#first.textContent = first;
    this.#rest.textContent = rest;
    this.element.open = false;
    this.element.classList.toggle("sf-short", !rest);
  }
}
