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
  /** @type {{request: ActionRequest, seen: number, refused: number}[]} seen, refused: number of actions, and of refused
   *  prompts, in the state when it was requested */
  #pending = [];

  get requests() {
    return this.#pending.map(({ request }) => request);
  }

  /** @type {(request: ActionRequest, state: RunState) => void} */
  add(request, state) {
    this.#pending.push({ request, seen: state.actions.length, refused: state.refused.count });
  }

  /**
   * Drops the requests that took effect, and prompts that the text encoder refused. Returns the actions of the former.
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
      if (isRefused(one, state)) return false;
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

/** @type {(one: {request: ActionRequest, refused: number}, state: RunState) => boolean} */
const isRefused = ({ request, refused }, state) =>
  request.action === "prompt" && state.refused.count > refused && plain(request.prompt) === plain(state.refused.prompt);

/** The prompt as the server stores it. */
const plain = (prompt = "") => prompt.trim().replace(/\s+/g, " ");

/**
 * @typedef {object} RunView a player, as Runs needs it
 * @property {string | null} run
 * @property {(state: RunState, joined: boolean) => void} showState
 * @property {(message: FramesMessage) => void} addFrames
 * @property {(message: WithdrawnMessage) => void} withdraw
 * @property {(output: any) => void} showResult
 * @property {(text: string) => void} showProgress
 */

/**
 * @typedef {object} Output what a node returned for the editor
 * @property {any[]} [sf_run]
 * @property {any[]} [sf_video]
 */

/**
 * Passes each run's messages to the players of its node, in the tab that queued it. Keeps states of nodes without a player
 * too: their tab may be opened later.
 */
export class Runs {
  /** @type {Map<ComfyNode, RunView>} */
  #players = new Map();
  /** @type {Map<string, RunState>} by run */
  #states = new Map();
  /** @type {Map<string, {node: string, tab: string, output: Output}>} by tab and node */
  #results = new Map();
  /** @type {Map<string, string>} names of tabs by run */
  #tabsOfRuns = new Map();
  #idsOf;
  #tabs;

  /**
   * @param {object} editor
   * @param {(node: ComfyNode) => string[]} editor.idsOf execution ids of a node
   * @param {Pick<import("./tabs.js").Tabs, "current" | "workflow" | "of">} editor.tabs another tab may have nodes of the
   *   same ids
   */
  constructor({ idsOf, tabs }) {
    this.#idsOf = idsOf;
    this.#tabs = tabs;
  }

  /** The runs that a player shows. */
  get shown() {
    return [...this.#players.values()].flatMap(({ run }) => (run === null ? [] : [run]));
  }

  /**
   * Those that are on the screen: not in a subgraph that is closed, and not behind App mode.
   *
   * @param {(node: ComfyNode) => boolean} isOnScreen
   */
  shownWhere(isOnScreen) {
    return [...this.#players].flatMap(([node, { run }]) => (run !== null && isOnScreen(node) ? [run] : []));
  }

  /** @param {string} run */
  knows(run) {
    return this.#states.has(run);
  }

  /** @type {(node: ComfyNode, player: RunView) => void} */
  add(node, player) {
    this.#players.set(node, player);
  }

  /**
   * Gives the player of a node, now that the node is in its graph and its tab is open, what was kept for it.
   *
   * @param {ComfyNode} node
   */
  offer(node) {
    for (const { node: id, tab, output } of this.#results.values())
      if (tab === this.#tabs.current && this.#idsOf(node).includes(id)) this.#players.get(node)?.showResult(output);
    for (const state of this.#states.values())
      for (const player of this.#playersOf(state, node)) player.showState(state, true);
  }

  /** Does so for all players. */
  offerAll() {
    for (const node of this.#players.keys()) this.offer(node);
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
    const isKnown = state.workflow || this.#tabs.of(state.prompt_id) !== undefined || this.shown.includes(state.run);
    if (ended && !isKnown) return; // nobody knows whose it was
    const tab = this.#tabOf(state.run, state);
    const others = [...this.#states.values()].filter(
      ({ node_id, run }) => node_id === state.node_id && run !== state.run && this.#tabOf(run) === tab,
    );
    if (ended && others.some(isLive)) return;
    for (const { run } of others) this.#states.delete(run);
    this.#states.set(state.run, state);
    if (tab !== null && isLive(state)) this.#results.delete(`${tab} ${state.node_id}`);
    for (const player of this.#playersOf(state)) player.showState(state, joined);
  }

  /** @param {FramesMessage} message */
  frames(message) {
    for (const player of this.#playersOf(message)) player.addFrames(message);
  }

  /** @param {WithdrawnMessage} message */
  withdrawn(message) {
    for (const player of this.#playersOf(message)) player.withdraw(message);
  }

  /**
   * Shows what a node says while it works. Returns whether a node with a player, of that id, is open.
   *
   * @type {(id: string, text: string, tab: string | null) => boolean}
   */
  progress(id, text, tab) {
    const players = [...this.#players].flatMap(([node, player]) => (this.#idsOf(node).includes(id) ? [player] : []));
    if (tab === this.#tabs.current) for (const player of players) player.showProgress(text);
    return players.length > 0;
  }

  /**
   * Shows what a node returned, perhaps a result that ComfyUI had kept. The editor hands it to whichever node of that id
   * is open.
   *
   * @param {{node: string, prompt_id: string, output: Output | null}} message
   */
  result({ node: id, prompt_id, output }) {
    const tab = this.#tabs.of(prompt_id) ?? this.#tabs.current;
    if (!output?.sf_run || tab === null) return;
    this.#results.set(`${tab} ${id}`, { node: id, tab, output });
    if (tab !== this.#tabs.current) return;
    for (const [node, player] of this.#players) if (this.#idsOf(node).includes(id)) player.showResult(output);
  }

  /** @type {(message: {node_id: string, run: string}, only?: ComfyNode) => RunView[]} */
  #playersOf({ node_id, run }, only) {
    const tab = this.#tabOf(run);
    const isOpen = tab !== null && tab === this.#tabs.current;
    const players = [];
    for (const [node, player] of this.#players) {
      if ((only && node !== only) || !this.#idsOf(node).includes(node_id)) continue;
      if (player.run === run || isOpen) players.push(player);
    }
    return players;
  }

  /**
   * The tab of a run; null if that is not known. A run that no tab of this page queued is of the tab with its workflow.
   *
   * @type {(run: string, state?: RunState) => string | null}
   */
  #tabOf(run, state = this.#states.get(run)) {
    const known = this.#tabsOfRuns.get(run) ?? (state && this.#tabs.of(state.prompt_id));
    const isHere = !state?.workflow || state.workflow === this.#tabs.workflow;
    const tab = known ?? (isHere ? this.#tabs.current : null);
    if (tab !== null) this.#tabsOfRuns.set(run, tab);
    return tab;
  }
}
