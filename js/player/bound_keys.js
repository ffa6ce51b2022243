import { parseKeys, symbolOf, symbolsOf } from "./key_bindings.js";
import { clock } from "./playback.js";
import { isLive } from "./runs.js";

const PROPERTY = "keys"; // of the node: workflows keep it, and prompts do not, so another key changes no result
const LATE = 0.35; // seconds behind the newest frame from which on a key jumps to it

/** The keys of a node that steer its runs. */
export class BoundKeys {
  #node;
  #t;
  #parts;
  #read = { text: "", actions: parseKeys("").actions }; // the text that was read last, and what it says

  /**
   * @param {ComfyNode} node
   * @param {Translate} t
   * @param {Pick<import("./user_actions.js").PlayerParts, "face" | "playback" | "state" | "changed">} parts
   */
  constructor(node, t, parts) {
    this.#node = node;
    this.#t = t;
    this.#parts = parts;
  }

  /** One key a line, as `parseKeys` reads it. */
  get text() {
    const text = this.#node.properties?.[PROPERTY];
    return typeof text === "string" ? text : "";
  }

  set text(text) {
    this.#node.properties = { ...this.#node.properties, [PROPERTY]: text };
    this.#parts.changed();
  }

  /** The keys that the player takes for itself. */
  get own() {
    return this.#parts.face().ownKeys;
  }

  /** What keys do now: without a text encoder, a run takes no prompts. */
  get #actions() {
    const [{ text }, state] = [this, this.#parts.state()];
    if (!this.#parts.face().takesAll || state === null || !isLive(state) || state.state === "stopping") return new Map();
    if (text !== this.#read.text) this.#read = { text, actions: parseKeys(text).actions };
    const { actions } = this.#read;
    return state.steerable ? actions : new Map([...actions].filter(([, { action }]) => action === "cut"));
  }

  /** Whether keys steer now. */
  get steer() {
    return this.#actions.size > 0;
  }

  /** What there is to say of them. */
  get message() {
    const keys = symbolsOf(this.#actions.keys());
    if (!keys) return "";
    return this.#t(this.#parts.face().hasKeys ? "keys.steer" : "keys.click", { keys });
  }

  /**
   * Returns what a key does now; undefined: it does not steer.
   *
   * @param {string} name as of a KeyboardEvent, letters in lower case
   */
  actionOf(name) {
    const action = this.#actions.get(name);
    return action && (() => this.#press(name, action));
  }

  /** @type {(name: string, action: import("./key_bindings.js").KeyAction) => void} */
  #press(name, action) {
    const [{ bar, bezel, screen }, playback] = [this.#parts.face(), this.#parts.playback()];
    bar?.press(action);
    bezel.flash("keys", symbolOf(name));
    const { queue } = playback;
    // otherwise the picture follows the key only when it has caught up
    if (!screen.showsVideo && (!queue.playing || queue.behind(clock()) > LATE)) playback.goLive();
    this.#parts.changed();
  }
}
