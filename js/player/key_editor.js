import { make } from "../lib/dom.js";
import { parseKeys, symbolsOf } from "./key_bindings.js";

/**
 * Fills a panel with the text of a node's keys. What is typed holds at once; what is wrong with it is said below.
 *
 * @param {HTMLElement} panel
 * @param {{text: string, readonly own: string[]}} keys of a node, and those that its player takes for itself
 * @param {Translate} t
 */
export function fillKeys(panel, keys, t) {
  const field = make("textarea", { rows: 8, cols: 46, spellcheck: false, value: keys.text, "aria-label": t("keys.title") });
  field.placeholder = t("keys.example");
  const notes = make("div", { className: "sf-notes", role: "status" });
  const check = () => notes.replaceChildren(...remarks(field.value, keys.own, t));
  field.oninput = () => {
    keys.text = field.value;
    check();
  };
  check();
  panel.replaceChildren(make("h4", {}, t("keys.title")), make("p", {}, t("keys.about")), field, notes);
  field.focus();
}

/** What there is to say of the text. @type {(text: string, own: string[], t: Translate) => HTMLElement[]} */
function remarks(text, own, t) {
  const { actions, errors } = parseKeys(text);
  const wrong = errors.map(({ line, message, what }) => make("p", { className: "sf-wrong" }, t("keys.line", { n: line, why: t(message, { what }) })));
  const taken = [...actions.keys()].filter((key) => own.includes(key));
  return taken.length ? [...wrong, make("p", {}, t("keys.taken", { keys: symbolsOf(taken) }))] : wrong;
}
