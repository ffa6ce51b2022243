import { make } from "../lib/dom.js";
import { driftPlot } from "./drift_plot.js";
import { icon } from "./icons.js";
import { createPopup, isOpen } from "./popup.js";

/** The line of facts, with the details on demand. */
export class StatusLine {
  #t;
  #state = make("span", { className: "sf-state", role: "status" });
  #facts = make("span", { className: "sf-facts" });
  #button = make("button", { type: "button", className: "sf-info" }, icon("info"));
  #details;
  #drift;
  #popup;
  element;

  /**
   * @param {Translate} t
   * @param {() => import("./status.js").Details} details
   * @param {() => import("../lib/messages.js").RunState["drift"]} drift
   */
  constructor(t, details, drift) {
    this.#t = t;
    this.#details = details;
    this.#drift = drift;
    this.#button.title = this.#button.ariaLabel = t("player.details");
    this.#popup = createPopup(this.#button, t("player.details"), () => this.#fill());
    this.element = make("div", { className: "sf-status" }, this.#state, this.#facts, this.#button, this.#popup);
  }

  /** @param {import("./status.js").Status} status */
  show({ tone, state, facts }) {
    this.element.dataset.tone = tone;
    if (this.#state.textContent !== state) this.#state.textContent = state; // screen readers read each change aloud
    const line = facts.join(" · ");
    if (this.#facts.textContent !== line) this.#facts.textContent = line;
    const details = this.#details();
    this.#button.hidden = !details.length;
    if (isOpen(this.#popup)) this.#fill();
  }

  #fill() {
    const lines = this.#details().map(([label, value]) => make("div", {}, make("dt", {}, label), make("dd", {}, value)));
    const drift = this.#drift();
    this.#popup.replaceChildren(make("dl", {}, ...lines), ...(drift ? [driftPlot(drift, this.#t)] : []));
  }
}
