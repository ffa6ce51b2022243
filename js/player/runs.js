import { fill } from "../lib/i18n.js";

/** What a run's state says, in words; and which node shows which run. docs/live.md says what a state is. */

export const isLive = (state) => ["running", "paused", "stopping"].includes(state?.state);

/** Whether a run was steered, so that it takes rows of a timeline to make it again. */
export const isSteered = (state) => Boolean(state?.rows && state.actions?.length);

/**
 * The two lines over the picture.
 * @param seen {{empty, late, paused, interruptions, shownFps}} of the player; shownFps null: not counted
 */
export function badge(state, seen, said) {
  const one = (text, value, digits) => fill(text, { n: value.toFixed(digits) });
  const facts = [
    state.chunks ? fill(said.chunkOf, { n: state.chunk, m: state.chunks }) : fill(said.chunk, { n: state.chunk }),
    state.made_fps ? one(said.madeFps, state.made_fps, 1) : "",
    seen.shownFps === null ? "" : one(said.shownFps, seen.shownFps, 1),
    state.first_seconds === null ? "" : one(said.firstFrame, state.first_seconds, state.first_seconds < 10 ? 1 : 0),
    state.cache_bytes ? fill(said.cache, { size: sizeInWords(state.cache_bytes) }) : "",
  ];
  return { facts: facts.filter(Boolean).join(" · "), status: status(state, seen, said), note: state.note ?? "" };
}

function status(state, seen, said) {
  if (state.state === "paused") return said.runPaused;
  if (state.state === "stopping") return said.stopping;
  if (state.state === "interrupted") return said.interrupted;
  if (state.state === "failed") return said.failed;
  if (state.state === "ended") return state.chunk < state.chunks || !state.chunks ? said.stopped : "";
  if (seen.empty) return state.chunk ? "" : said.waitingFirst;
  if (seen.paused) return said.paused;
  if (seen.late) return said.late;
  return seen.interruptions && state.made_fps < state.fps ? fill(said.slow, { n: seen.interruptions }) : "";
}

export function sizeInWords(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const size = bytes / 1024 ** unit;
  return `${size.toFixed(unit && size < 100 ? 1 : 0)} ${units[unit]}`;
}

/** What was done to a run by hand, in a few words. */
export function actionInWords({ action, prompt, blend }, said) {
  if (action === "prompt") return blend > 1 ? fill(said.promptBlended, { prompt, n: blend }) : prompt;
  return { cut: said.didCut, reroll: said.didReroll }[action] ?? action;
}

/** What was asked of a run and did not take effect yet. */
export class Asked {
  #waiting = []; // {body, seen: how many actions there were}

  get waiting() {
    return this.#waiting.map((one) => one.body);
  }

  add(body, state) {
    this.#waiting.push({ body, seen: state.actions.length });
  }

  /** Returns the actions that were waited for and took effect. */
  settle(state) {
    const taken = [];
    const used = new Set();
    this.#waiting = this.#waiting.filter((one) => {
      one.seen = Math.min(one.seen, state.actions.length); // a re-roll may take actions back
      if (!isLive(state)) return false;
      const states = { pause: ["paused"], resume: ["running"], stop: ["stopping"] }[one.body.action];
      if (states) return !states.includes(state.state);
      const at = state.actions.findIndex((action, k) => k >= one.seen && !used.has(k) && isAnswer(action, one.body));
      if (at < 0) return true;
      used.add(at);
      taken.push(state.actions[at]);
      return false;
    });
    return taken;
  }

  clear() {
    this.#waiting = [];
  }
}

const isAnswer = (action, body) =>
  action.action === body.action && (body.action !== "prompt" || plain(action.prompt) === plain(body.prompt));
const plain = (text) => text.trim().replace(/\s+/g, " "); // as the server has it

/**
 * Which node's player shows which run. States are kept for nodes that are not there, as in a workflow that is yet to be
 * opened.
 */
export class Runs {
  #players = new Map(); // by node
  #states = new Map(); // by execution id
  #idsOf;
  #placeOf;
  #places;

  /**
   * @param idsOf the execution ids of a node
   * @param placeOf the name of the workflow that a node is in: another one has a node of the same id
   * @param places {Map} workflow by run
   */
  constructor({ idsOf, placeOf, places = new Map() }) {
    [this.#idsOf, this.#placeOf, this.#places] = [idsOf, placeOf, places];
  }

  add(node, player) {
    this.#players.set(node, player);
  }

  /** The node is in its graph now: its player gets the state that was kept for it. */
  offer(node) {
    for (const state of this.#states.values())
      for (const player of this.#playersOf(state, node)) player.showState(state, true);
  }

  remove(node) {
    this.#players.delete(node);
  }

  /** joined: the run went on, or ended, while nobody here listened. */
  state(state, joined = false) {
    if (joined && !isLive(state) && !state.workflow && !this.#isShown(state.run)) return; // whose was it?
    const known = this.#states.get(String(state.node_id));
    if (known && known.run !== state.run && isLive(known) && joined && !isLive(state)) return;
    this.#states.set(String(state.node_id), state);
    if (state.workflow) this.#places.set(state.run, state.workflow);
    for (const player of this.#playersOf(state)) player.showState(state, joined);
  }

  #isShown(run) {
    return [...this.#players.values()].some((player) => player.run === run);
  }

  frames(message) {
    for (const player of this.#playersOf(message)) player.addFrames(message);
  }

  withdrawn(message) {
    for (const player of this.#playersOf(message)) player.withdraw(message);
  }

  #playersOf({ node_id, run }, only) {
    const found = [];
    for (const [node, player] of this.#players) {
      if ((only && node !== only) || !this.#idsOf(node).includes(String(node_id))) continue;
      const place = this.#placeOf(node);
      if (!this.#places.has(run)) this.#places.set(run, place);
      if (player.run === run || this.#places.get(run) === place) found.push(player);
    }
    return found;
  }
}
