import { make } from "../lib/dom.js";
import { Note } from "./note.js";
import { PendingActions, describeAction, isLive } from "./runs.js";

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 * @typedef {import("./runs.js").ActionRequest} ActionRequest
 * @typedef {"all" | "stop"} Steering actions that a node's runs take
 */

const LISTED = 3; // actions below the buttons
const LONGEST_BLEND = 16; // chunks
const LONGEST_PROMPT = 2000; // letters

/** @type {Record<string, TextKey>} */
const PENDING_TEXTS = {
  pause: "steering.pendingPause",
  resume: "steering.pendingResume",
  reroll: "steering.pendingReroll",
  cut: "steering.pendingCut",
  stop: "steering.pendingStop",
};

/**
 * Makes the bar that steers a run: prompts, and actions on chunks. It is visible while the run is live; what the run says,
 * such as why it refused a prompt, stays.
 *
 * @param {Translate} t
 * @param {Steering} steering
 * @param {(body: object) => Promise<unknown>} send rejects with an Error that says why the server refused
 * @param {(error: Error) => void} refused called with that Error
 */
export function createSteeringBar(t, steering, send, refused) {
  const pending = new PendingActions();
  /** @type {RunState | null} */
  let state = null;
  let newest = ""; // describes the action that took effect last

  /** @param {ActionRequest} request */
  async function ask(request) {
    const asked = state;
    if (!asked) return false;
    try {
      await send({ node_id: asked.node_id, run: asked.run, ...request });
    } catch (error) {
      refused(/** @type {Error} */ (error));
      return false;
    }
    // counted from the state at the time of asking: a newer one may have come before this answer
    if (state?.run === asked.run) pending.add(request, asked);
    show(state);
    return true;
  }

  /** @type {(action: () => string, text: TextKey, title: TextKey) => HTMLButtonElement} */
  const button = (action, text, title) =>
    make("button", { type: "button", title: t(title), onclick: () => ask({ action: action() }) }, t(text));
  const prompt = make("input", { type: "text", "aria-label": t("steering.prompt"), maxLength: LONGEST_PROMPT });
  const blend = make("input", { type: "number", min: 1, max: LONGEST_BLEND, step: 1, value: 1 });
  const blendLabel = make("label", { title: t("steering.blendTooltip") }, t("steering.blend"), blend);
  const nextPause = () => (state?.state === "paused" ? "resume" : "pause");
  const pause = button(nextPause, "steering.pause", "steering.pauseTooltip");
  const reroll = button(() => "reroll", "steering.reroll", "steering.rerollTooltip");
  const cut = button(() => "cut", "steering.cut", "steering.cutTooltip");
  const stop = button(() => "stop", "steering.stop", "steering.stopTooltip");
  const status = make("span", { className: "sf-waits", role: "status" });
  const promptRow = make("div", { className: "sf-row" }, prompt, blendLabel);
  const buttonRow = make("div", { className: "sf-row" }, pause, reroll, cut, stop, status);
  const history = make("div", { className: "sf-done" });
  const note = new Note();
  const element = make("div", { className: "sf-steering", hidden: true }, promptRow, note.element, buttonRow, history);
  if (steering === "stop") for (const part of [promptRow, pause, reroll, cut, history]) part.remove();

  prompt.onkeydown = async (event) => {
    if (event.isComposing) return; // Enter picks a word of an input method
    if (event.key === "Escape") prompt.value = "";
    const text = prompt.value.trim();
    if (event.key !== "Enter" || !text) return;
    event.preventDefault();
    const chunks = Math.max(1, Math.min(LONGEST_BLEND, Math.round(blend.valueAsNumber) || 1));
    const accepted = await ask({ action: "prompt", prompt: text, blend: chunks });
    if (accepted && prompt.value.trim() === text) prompt.select();
  };

  /** @param {RunState | null} newer */
  function show(newer) {
    if (newer?.run !== state?.run) {
      pending.clear();
      newest = "";
    }
    state = newer;
    note.show(state?.note ?? "");
    element.hidden = !isLive(state) && note.element.hidden;
    for (const part of [promptRow, buttonRow, history]) part.hidden = !isLive(state);
    if (!state) return;
    showStatus(state);
    showPrompt(state);
    showButtons(state);
    history.replaceChildren(...state.actions.slice(-LISTED).reverse().map(historyLine));
  }

  /** @param {RunState} state */
  function showStatus(state) {
    const taken = pending.settle(state).at(-1);
    if (taken) newest = t("steering.fromChunk", { n: taken.chunk, what: describeAction(taken, t) });
    const waiting = pending.requests.map(({ action, prompt }) => prompt ?? t(PENDING_TEXTS[action]));
    status.textContent = waiting.length ? t("steering.pending", { what: waiting.join(", ") }) : newest;
    status.title = status.textContent;
    status.classList.toggle("sf-asked", waiting.length > 0);
  }

  /** @param {RunState} state */
  function showPrompt(state) {
    prompt.disabled = blend.disabled = !state.steerable || state.state === "stopping";
    prompt.title = t(state.steerable ? "steering.prompt" : "steering.notSteerable");
    const hint = state.prompt || t("steering.promptPlaceholder");
    prompt.placeholder = state.steerable ? hint : t("steering.notSteerable");
  }

  /** @param {RunState} state */
  function showButtons(state) {
    const ending = state.state === "stopping";
    /** @type {(...actions: string[]) => boolean} */
    const isPending = (...actions) => pending.requests.some(({ action }) => actions.includes(action));
    pause.textContent = t(state.state === "paused" ? "steering.resume" : "steering.pause");
    pause.title = t(state.state === "paused" ? "steering.resumeTooltip" : "steering.pauseTooltip");
    pause.disabled = ending || isPending("pause", "resume");
    reroll.disabled = ending || !state.chunk || isPending("reroll");
    cut.disabled = ending || isPending("cut");
    stop.disabled = ending || isPending("stop");
  }

  /** @param {import("../lib/messages.js").RunAction} action */
  function historyLine(action) {
    const text = t("steering.atChunk", { n: action.chunk, what: describeAction(action, t) });
    return make("div", { title: text }, text);
  }

  return { element, show };
}
