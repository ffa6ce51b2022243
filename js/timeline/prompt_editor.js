import { make } from "../lib/dom.js";

/**
 * Opens an input for the prompt of a row. Enter and leaving the input accept it, Escape does not, nor does an empty text.
 *
 * @param {HTMLElement} track where it is shown
 * @param {object} asked
 * @param {string} asked.prompt the text to begin with
 * @param {string} asked.label
 * @param {(prompt: string) => void} asked.accept
 * @param {() => void} asked.cancel
 */
export function askForPrompt(track, { prompt, label, accept, cancel }) {
  const input = make("textarea", { className: "sf-timeline-edit", value: prompt, "aria-label": label });
  let open = true;
  /** @param {boolean} keep */
  const close = (keep) => {
    if (!open) return;
    open = false; // removing it takes the focus from it, which calls close again
    input.remove();
    if (keep && input.value.trim()) accept(input.value);
    else cancel();
  };
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter picks a word of an input method
    if (event.key === "Escape") close(false);
    if (event.key !== "Enter") return;
    event.preventDefault();
    close(true);
  });
  input.addEventListener("blur", () => close(true));
  track.append(input);
  input.focus({ preventScroll: true });
  input.select();
}
