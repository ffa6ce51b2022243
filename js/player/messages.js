import { clock } from "./playback.js";
import { isLive } from "./runs.js";
import { trainingMessage } from "./loss_curve.js";

/**
 * @typedef {import("./message_line.js").Message} Message
 * @typedef {import("../lib/messages.js").RunState} RunState
 *
 * @typedef {object} Facts
 * @property {RunState | null} state
 * @property {Message | null} bar what the steering bar says
 * @property {boolean} steers whether there is such a bar
 * @property {boolean} ends whether there are buttons for ended runs
 * @property {boolean} trains
 * @property {boolean} empty whether there is no frame yet
 * @property {number} interruptions of playback
 * @property {string} keys what there is to say of keys that steer
 * @property {{information: string, kept: string}} actions what the user has just done, and the name of a kept session
 */

const LASTING = 1; // seconds that work takes that is worth a word
const FACTS = / · .* · /; // of a progress text, in any language, that says what the line of facts says too

/** What the player says below the input: one message, the most important one that holds. */
export class Messages {
  /** Runs that wait for this one to end. */
  waiting = 0;
  #t;
  #progress = ""; // what the server says of the work
  #since = 0;

  /** @param {Translate} t */
  constructor(t) {
    this.#t = t;
  }

  /** @param {string} text of the server, on what the node does */
  showProgress(text) {
    this.#progress = FACTS.test(text) ? "" : text;
    this.#since = clock();
  }

  /**
   * @param {Facts} facts
   * @returns {Message | null}
   */
  of(facts) {
    const { state, bar, actions } = facts;
    if (bar?.tone === "warn") return bar;
    if (actions.information) return { text: actions.information };
    if (bar) return bar;
    if (!facts.steers && state?.note) return { text: state.note, tone: "warn" };
    if (state && facts.trains) return { text: trainingMessage(state, this.#t) || this.#progress };
    if (actions.kept) return { text: this.#t("player.kept", { name: actions.kept }) };
    if (!state) return null;
    if (isLive(state)) return { text: this.#work(state, facts) };
    return state.session && facts.ends ? { text: this.#t("player.canContinue") } : null;
  }

  /** What there is to say of a live run that needs no answer. @type {(state: RunState, facts: Facts) => string} */
  #work(state, { empty, interruptions, keys }) {
    const isNews = empty || clock() - this.#since > LASTING;
    if (isNews && this.#progress) return this.#progress;
    if (this.waiting) return this.#t("sessions.waiting", { n: this.waiting });
    return interruptions > 0 && state.made_fps < state.fps ? this.#t("player.slow") : keys;
  }
}
