import { make } from "../lib/dom.js";
import { icon } from "./icons.js";
import { close, createPopup } from "./popup.js";
import { PendingActions, describeAction, isLive } from "./runs.js";

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 * @typedef {import("./runs.js").ActionRequest} ActionRequest
 * @typedef {import("./message_line.js").Message} Message
 * @typedef {"all" | "stop"} Steering actions that a node's runs take
 *
 * @typedef {object} SteeringHost
 * @property {(body: object) => Promise<unknown>} send rejects with an Error that says why the server refused
 * @property {() => void} changed called when `message` may be another one
 * @property {() => boolean} takesPrompts whether the node, as it is wired, will take prompts
 * @property {() => string[]} offered prompts that one may want to type
 * @property {import("./prompt_history.js").PromptHistory} history
 */

const LONGEST_PROMPT = 2000; // letters

/** @type {Record<string, TextKey>} */
const PENDING_TEXTS = {
  pause: "steering.pendingPause",
  resume: "steering.pendingResume",
  reroll: "steering.pendingReroll",
  cut: "steering.pendingCut",
  stop: "steering.pendingStop",
};

/** The bar that steers a run: prompts, and actions on chunks. */
export class SteeringBar {
  /** Chunks in which a typed prompt blends in. */
  blend = 1;
  #t;
  #host;
  #pending = new PendingActions();
  /** @type {RunState | null} */
  #state = null;
  #newest = ""; // describes the action that took effect last
  #error = ""; // why the server refused the last request
  #refusals = 0;
  #refused = ""; // the note about a prompt that was not understood
  #dismissed = ""; // such a note that holds no longer
  #prompt;
  #prompts;
  #popup;
  #blends = make("span", { className: "sf-blend" });
  #cut;
  #reroll;
  #hold;
  stop;
  element;

  /**
   * @param {Translate} t
   * @param {SteeringHost} host
   */
  constructor(t, host) {
    this.#t = t;
    this.#host = host;
    this.#prompt = make("input", { type: "text", "aria-label": t("steering.prompt"), maxLength: LONGEST_PROMPT });
    this.#prompts = make("button", { type: "button", className: "sf-prompts" }, icon("prompts"));
    this.#prompts.title = this.#prompts.ariaLabel = t("steering.prompts");
    this.#popup = createPopup(this.#prompts, t("steering.prompts"), (panel) => this.#listPrompts(panel));
    this.#cut = this.#button("cut", "cut");
    this.#reroll = this.#button("reroll", "reroll");
    this.#hold = this.#button("pause", "hold");
    this.stop = this.#button("stop", "stop");
    const field = make("div", { className: "sf-field" }, this.#prompt, this.#blends, this.#prompts, this.#popup);
    const actions = make("div", { className: "sf-actions" }, this.#cut, this.#reroll, this.#hold, this.stop);
    this.element = make("div", { className: "sf-row sf-steering" }, field, actions);
    this.#prompt.addEventListener("keydown", (event) => this.#key(event));
    this.#prompt.addEventListener("input", () => this.#edited());
    this.show(null);
  }

  /** @type {(action: string, drawing: import("./icons.js").Icon) => HTMLButtonElement} */
  #button(action, drawing) {
    const button = make("button", { type: "button", className: `sf-${action}` }, icon(drawing));
    button.onclick = () => this.act(action);
    return button;
  }

  // what the user does ------------------------------------------------------------------------------------------------

  /** @param {string} action "pause" resumes a paused run */
  act(action) {
    const button = { cut: this.#cut, reroll: this.#reroll, pause: this.#hold, stop: this.stop }[action];
    if (button?.disabled) return;
    this.#ask({ action: action === "pause" && this.#state?.state === "paused" ? "resume" : action });
  }

  /**
   * Does what a key is bound to.
   *
   * @param {import("./key_bindings.js").KeyAction} action
   */
  press({ action, prompt }) {
    if (action === "cut") return this.act("cut");
    if (this.#pending.requests.at(-1)?.prompt === prompt) return; // it comes with the next chunk already
    this.#ask({ action, prompt, blend: this.blend });
  }

  focusPrompt() {
    this.#prompt.focus();
    this.#prompt.select();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.isComposing) return; // Enter picks a word of an input method
    if (event.key === "Enter") return this.#send(event);
    if (event.key === "Escape") return this.#leave();
    const direction = event.key === "ArrowUp" ? -1 : event.key === "ArrowDown" ? 1 : null;
    if (direction === null) return;
    event.preventDefault();
    const text = this.#host.history.step(direction, this.#prompt.value, this.#host.offered());
    if (text !== null) this.#prompt.value = text;
  }

  #leave() {
    if (this.#prompt.value) this.#prompt.value = "";
    else /** @type {HTMLElement | null} */ (this.element.closest("[tabindex]"))?.focus();
    this.#edited();
  }

  #edited() {
    this.#host.history.leave();
    this.#error = "";
    this.#dismissed = this.#refused;
    this.#host.changed();
  }

  /** @param {KeyboardEvent} event */
  async #send(event) {
    const text = this.#prompt.value.trim();
    if (!text) return;
    event.preventDefault();
    const refusals = this.#refusals;
    const accepted = await this.#ask({ action: "prompt", prompt: text, blend: this.blend });
    if (!accepted) return;
    this.#host.history.add(text);
    const isRefused = this.#refusals > refusals; // already, by the text encoder: it stays to be mended
    if (!isRefused && this.#prompt.value.trim() === text) this.#prompt.value = "";
  }

  /** @param {ActionRequest} request */
  async #ask(request) {
    const asked = this.#state;
    if (!asked) return false;
    this.#error = "";
    try {
      await this.#host.send({ node_id: asked.node_id, run: asked.run, ...request });
    } catch (error) {
      this.#error = /** @type {Error} */ (error).message;
      this.#host.changed();
      return false;
    }
    // counted from the state at the time of asking: a newer one may have come before this answer
    if (this.#state?.run === asked.run) this.#pending.add(request, asked);
    this.show(this.#state);
    this.#host.changed();
    return true;
  }

  /** @param {HTMLElement} panel */
  #listPrompts(panel) {
    const typed = this.#host.history.prompts.reverse();
    const offered = this.#host.offered().filter((prompt) => !typed.includes(prompt));
    /** @type {(label: TextKey, prompts: string[]) => Node[]} */
    const group = (label, prompts) =>
      prompts.length ? [make("h4", {}, this.#t(label)), ...prompts.map((prompt) => this.#offer(prompt, panel))] : [];
    const groups = [...group("steering.typed", typed), ...group("steering.ofTimeline", offered)];
    panel.replaceChildren(...(groups.length ? groups : [make("p", {}, this.#t("steering.noPrompts"))]));
  }

  /** @type {(prompt: string, panel: HTMLElement) => HTMLElement} */
  #offer(prompt, panel) {
    const take = () => {
      close(panel);
      this.#prompt.value = prompt;
      this.#edited();
      this.#prompt.focus();
    };
    return make("button", { type: "button", className: "sf-item", onclick: take }, prompt);
  }

  // what the run says -------------------------------------------------------------------------------------------------

  /** What there is to say: a refusal, what waits for its chunk, or what took effect last. @returns {Message | null} */
  get message() {
    const state = this.#state;
    if (this.#error) return { text: this.#t("player.refused", { why: this.#error }), tone: "warn" };
    const isOld = state?.note === this.#refused && (this.#dismissed === this.#refused || !isLive(state));
    if (state?.note && !isOld) return { text: state.note, tone: "warn" };
    const waiting = this.#pending.requests.map(({ action, prompt }) => prompt ?? this.#t(PENDING_TEXTS[action]));
    if (waiting.length) return { text: this.#t("steering.pending", { what: waiting.join(", ") }), tone: "wait" };
    return this.#newest && isLive(state) ? { text: this.#newest } : null;
  }

  /** @param {RunState | null} state */
  show(state) {
    if (state?.run !== this.#state?.run) {
      this.#pending.clear();
      this.#newest = this.#error = this.#refused = this.#dismissed = "";
      this.#refusals = 0;
    }
    this.#state = state;
    if (state) {
      this.#noteRefusal(state);
      const taken = this.#pending.settle(state).at(-1);
      if (taken) this.#newest = this.#t("steering.fromChunk", { n: taken.chunk, what: describeAction(taken, this.#t) });
    }
    this.#showPrompt();
    this.#showButtons();
  }

  /** @param {RunState} state */
  #noteRefusal({ refused, note }) {
    if (refused.count > this.#refusals) {
      [this.#refused, this.#dismissed] = [note, ""];
      this.#prompt.value ||= refused.prompt; // to be mended
    }
    this.#refusals = refused.count;
  }

  /** @param {number} chunks */
  setBlend(chunks) {
    this.blend = chunks;
    this.#showPrompt();
  }

  /** Shows again whether the field takes a prompt. */
  rewired() {
    this.#showPrompt();
  }

  #showPrompt() {
    const [state, t] = [this.#state, this.#t];
    const live = state !== null && isLive(state);
    const takes = live ? state.steerable : this.#host.takesPrompts();
    this.#prompt.disabled = this.#prompts.disabled = !live || !takes || state.state === "stopping";
    this.#prompts.hidden = !takes;
    const hint = live ? t("steering.promptPlaceholder") : t("steering.promptLater");
    this.#prompt.placeholder = takes ? hint : t("steering.notSteerable");
    this.#prompt.title = takes ? t("steering.prompt") : t("steering.notSteerable");
    this.#blends.textContent = this.blend > 1 ? t("steering.overChunks", { n: this.blend }) : "";
  }

  #showButtons() {
    const [state, t] = [this.#state, this.#t];
    const ends = state === null || !isLive(state) || state.state === "stopping";
    /** @type {(...actions: string[]) => boolean} */
    const isPending = (...actions) => this.#pending.requests.some(({ action }) => actions.includes(action));
    const paused = state?.state === "paused";
    this.#hold.replaceChildren(icon(paused ? "resume" : "hold"));
    label(this.#hold, t(paused ? "steering.resume" : "steering.pause"), t(paused ? "steering.resumeTooltip" : "steering.pauseTooltip"));
    label(this.#reroll, t("steering.reroll"), t("steering.rerollTooltip"));
    label(this.#cut, t("steering.cut"), t("steering.cutTooltip"));
    label(this.stop, t("steering.stop"), t("steering.stopTooltip"));
    this.#hold.disabled = ends || isPending("pause", "resume");
    this.#reroll.disabled = ends || !state.chunk || isPending("reroll");
    this.#cut.disabled = ends || isPending("cut");
    this.stop.disabled = ends || isPending("stop");
  }
}

/** @type {(button: HTMLButtonElement, name: string, title: string) => void} */
function label(button, name, title) {
  button.ariaLabel = name;
  button.title = title;
}
