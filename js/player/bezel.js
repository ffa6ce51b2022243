import { make } from "../lib/dom.js";
import { icon } from "./icons.js";

/** Shows over the picture, for a moment, what has just changed. */
export class Bezel {
  // the line of facts says the same to screen readers
  element = make("div", { className: "sf-bezel", "aria-hidden": "true" });

  /** @type {(drawing: import("./icons.js").Icon, text?: string) => void} */
  flash(drawing, text = "") {
    this.element.replaceChildren(icon(drawing), ...(text ? [text] : []));
    for (const animation of this.element.getAnimations()) animation.cancel();
    this.element.animate([{ opacity: 1 }, { opacity: 1, offset: 0.6 }, { opacity: 0 }], { duration: 1200 });
  }
}
