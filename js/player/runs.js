/** Runs: their states and actions, and which node shows which run. docs/live.md describes a state. */

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 * @typedef {import("../lib/messages.js").RunAction} RunAction
 * @typedef {import("../lib/messages.js").FramesMessage} FramesMessage
 * @typedef {import("../lib/messages.js").WithdrawnMessage} WithdrawnMessage
 */

/** @param {RunState | null} [state] */
export const isLive = (state) => state != null && ["running", "paused", "stopping"].includes(state.state);

/**
 * Whether a run was steered by hand, so that only the rows of a timeline can make its video again.
 *
 * @param {RunState | null} state
 */
export const isSteered = (state) => Boolean(state?.rows && state.actions.length);

/**
 * Describes an action that took effect, in a few words.
 *
 * @param {RunAction} action
 * @param {Translate} t
 */
export function describeAction({ action, prompt = "", blend = 1 }, t) {
  if (action === "prompt") return blend > 1 ? t("steering.promptBlended", { prompt, n: blend }) : prompt;
  if (action === "cut") return t("steering.doneCut");
  return action === "reroll" ? t("steering.doneReroll") : action;
}

/** @typedef {{action: string, prompt?: string, blend?: number}} ActionRequest */

/** States of the run that answer a request which is no action of its own. @type {Record<string, string>} */
const ANSWERING_STATES = { pause: "paused", resume: "running", stop: "stopping" };

/** Requests to a run that the server accepted and that did not take effect yet. */
export class PendingActions {
  /** @type {{request: ActionRequest, seen: number}[]} seen: number of actions in the state when it was requested */
  #pending = [];

  get requests() {
    return this.#pending.map(({ request }) => request);
  }

  /** @type {(request: ActionRequest, state: RunState) => void} */
  add(request, state) {
    this.#pending.push({ request, seen: state.actions.length });
  }

  /**
   * Drops the requests that took effect. Returns their actions.
   *
   * @param {RunState} state
   */
  settle(state) {
    /** @type {RunAction[]} */
    const taken = [];
    const used = new Set();
    this.#pending = this.#pending.filter((one) => {
      one.seen = Math.min(one.seen, state.actions.length); // a re-roll may take actions back
      if (!isLive(state)) return false;
      const answer = ANSWERING_STATES[one.request.action];
      if (answer) return answer !== state.state;
      const at = state.actions.findIndex((action, k) => k >= one.seen && !used.has(k) && answers(action, one.request));
      if (at < 0) return true;
      used.add(at);
      taken.push(state.actions[at]);
      return false;
    });
    return taken;
  }

  clear() {
    this.#pending = [];
  }
}

/** @type {(action: RunAction, request: ActionRequest) => boolean} */
const answers = (action, request) =>
  action.action === request.action && (action.action !== "prompt" || plain(action.prompt) === plain(request.prompt));

/** The prompt as the server stores it. */
const plain = (prompt = "") => prompt.trim().replace(/\s+/g, " ");

/**
 * @typedef {object} RunView a player, as Runs needs it
 * @property {string | null} run
 * @property {(state: RunState, joined: boolean) => void} showState
 * @property {(message: FramesMessage) => void} addFrames
 * @property {(message: WithdrawnMessage) => void} withdraw
 */

/**
 * Passes each run's messages to the players of its node. Keeps states of nodes without a player too: the workflow may be
 * opened later.
 */
export class Runs {
  /** @type {Map<ComfyNode, RunView>} */
  #players = new Map();
  /** @type {Map<string, RunState>} by execution id */
  #states = new Map();
  /** @type {Map<string, string | undefined>} ids of workflows by run */
  #workflows = new Map();
  #idsOf;
  #workflowOf;

  /**
   * @param {object} graph
   * @param {(node: ComfyNode) => string[]} graph.idsOf execution ids of a node
   * @param {(node: ComfyNode) => string | undefined} graph.workflowOf id of the workflow of a node: another workflow may
   *   have a node of the same id
   */
  constructor({ idsOf, workflowOf }) {
    this.#idsOf = idsOf;
    this.#workflowOf = workflowOf;
  }

  /** @type {(node: ComfyNode, player: RunView) => void} */
  add(node, player) {
    this.#players.set(node, player);
  }

  /**
   * Gives the player of a node, now that the node is in its graph, the state that was kept for it.
   *
   * @param {ComfyNode} node
   */
  offer(node) {
    for (const state of this.#states.values())
      for (const player of this.#playersOf(state, node)) player.showState(state, true);
  }

  /** @param {ComfyNode} node */
  remove(node) {
    this.#players.delete(node);
  }

  /**
   * @param {RunState} state
   * @param {boolean} joined whether the run began, and perhaps ended, while this page was not connected
   */
  state(state, joined = false) {
    const ended = joined && !isLive(state);
    if (ended && !state.workflow && !this.#isShown(state.run)) return; // nobody knows whose it was
    const known = this.#states.get(state.node_id);
    if (ended && isLive(known) && known?.run !== state.run) return;
    this.#states.set(state.node_id, state);
    if (state.workflow) this.#workflows.set(state.run, state.workflow);
    for (const player of this.#playersOf(state)) player.showState(state, joined);
  }

  /** @param {string} run */
  #isShown(run) {
    return [...this.#players.values()].some((player) => player.run === run);
  }

  /** @param {FramesMessage} message */
  frames(message) {
    for (const player of this.#playersOf(message)) player.addFrames(message);
  }

  /** @param {WithdrawnMessage} message */
  withdrawn(message) {
    for (const player of this.#playersOf(message)) player.withdraw(message);
  }

  /** @type {(message: {node_id: string, run: string}, only?: ComfyNode) => RunView[]} */
  #playersOf({ node_id, run }, only) {
    const players = [];
    for (const [node, player] of this.#players) {
      if ((only && node !== only) || !this.#idsOf(node).includes(node_id)) continue;
      const workflow = this.#workflowOf(node);
      if (!this.#workflows.has(run)) this.#workflows.set(run, workflow);
      if (player.run === run || this.#workflows.get(run) === workflow) players.push(player);
    }
    return players;
  }
}
