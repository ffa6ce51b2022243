const REMEMBERED = 50;

/**
 * Prompts that were typed, as a command line has them: one goes back to older ones and forth to newer ones, and what was
 * being typed is the newest.
 */
export class PromptHistory {
  #store;
  /** @type {string[] | null} while one goes through them, oldest first; the last is what was being typed */
  #shown = null;
  #at = 0;

  /** @param {{read: () => any, write: (prompts: string[]) => void}} store */
  constructor(store) {
    this.#store = store;
  }

  /** The prompts, oldest first. @returns {string[]} */
  get prompts() {
    const stored = this.#store.read();
    return Array.isArray(stored) ? stored.filter((prompt) => typeof prompt === "string" && prompt) : [];
  }

  /** @param {string} prompt */
  add(prompt) {
    this.#store.write([...this.prompts.filter((one) => one !== prompt), prompt].slice(-REMEMBERED));
    this.leave();
  }

  /**
   * Returns the prompt to show after a step, or null if there is none in this direction.
   *
   * @param {1 | -1} direction -1: to an older one
   * @param {string} typed what the field holds
   * @param {string[]} offered prompts of other places, which are older than those that were typed
   */
  step(direction, typed, offered) {
    if (!this.#shown) {
      const prompts = this.prompts;
      this.#shown = [...offered.filter((one) => !prompts.includes(one)), ...prompts, typed];
      this.#at = this.#shown.length - 1;
    }
    let at = this.#at + direction;
    while (this.#shown[at] === this.#shown[this.#at]) at += direction; // a step that changes nothing looks broken
    if (this.#shown[at] === undefined) return null;
    this.#at = at;
    return this.#shown[at];
  }

  /** Begins anew at the newest: the field was edited, or its prompt was sent. */
  leave() {
    this.#shown = null;
  }
}
