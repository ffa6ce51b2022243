import { after, growTo, locale, setting } from "../lib/editor.js";
import { addElement } from "../lib/widgets.js";
import { translator } from "../lib/i18n.js";
import { isState } from "../lib/messages.js";
import { fileUrl, getBlob, onWaiting } from "../lib/server.js";
import { chunkGrid } from "./chunk_grid.js";
import { DrawnRate } from "./drawn_rate.js";
import { Face } from "./face.js";
import { trainingStatus } from "./loss_curve.js";
import { marksOf } from "./marks.js";
import { Messages } from "./messages.js";
import { Playback, clock } from "./playback.js";
import { isLive, isSteered } from "./runs.js";
import { idleStatus, runDetails, runStatus } from "./status.js";
import { UserActions } from "./user_actions.js";

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 * @typedef {import("../lib/messages.js").FramesMessage} FramesMessage
 * @typedef {import("../lib/messages.js").WithdrawnMessage} WithdrawnMessage
 * @typedef {import("../lib/messages.js").ServerFile} ServerFile
 * @typedef {{steering?: import("./steering_bar.js").Steering, trains?: boolean}} Options steering: actions that runs of
 *   the node take; trains: whether they are trainings, whose frames are samples
 */

export const LOOP_SETTING = "SelfForcing.Player.Loop";
const WIDTH = 400; // pixels of a new node
/** Pixels at least, and of a new node: for a picture of 16 : 9. */
const HEIGHTS = { all: [320, 384], stop: [240, 350], none: [240, 350], trains: [320, 420] };
const LEAD = 1.25; // seconds to the newest frame: the server makes so much in advance
const REFRESH = 0.2; // seconds between two updates of the texts while something plays
const FORMER_RUNS = 100; // whose late messages are ignored

/** What is shown over the picture when a run comes into a state. @type {Record<string, import("./icons.js").Icon>} */
const BEZELS = { running: "play", paused: "hold", stopping: "stop", ended: "stop", interrupted: "stop", failed: "stop" };

/**
 * The player on a node: shows a run's frames as they come and then its video, and steers the run.
 *
 * It is drawn by its own elements, alike in the classic canvas and in Nodes 2.0. Neither saved workflows nor prompts hold
 * it.
 */
export class Player {
  #t = translator(locale());
  #options;
  /** @type {RunState | null} */
  #state = null;
  /** @type {string | null} */
  #run = null;
  /** @type {Set<string>} */
  #formerRuns = new Set(); // late messages of these are ignored
  #animation = 0; // handle of the next animation frame; -1 after remove()
  #refreshed = 0; // when the texts were updated
  #marksKey = "";
  /** @type {import("./marks.js").Mark[]} */
  #marks = [];
  #said = ""; // the state that was last said over the picture
  /** @type {UserActions} */
  #actions;
  /** @type {Face} */
  #face;
  /** @type {Playback} */
  #playback;
  #rate = new DrawnRate();
  #messages = new Messages(this.#t);
  #stopListening;

  /**
   * @param {ComfyNode} node
   * @param {Options} options
   */
  constructor(node, options = {}) {
    this.#options = options;
    this.#actions = new UserActions(node, this.#t, {
      ...{ face: () => this.#face, playback: () => this.#playback, state: () => this.#state, grid: () => this.#grid },
      changed: () => this.#wake(),
    });
    const screen = {
      fetch: (/** @type {number} */ number) => this.#fetch(number),
      drawn: () => this.#rate.count(clock()),
      changed: () => this.#wake(),
    };
    const [details, drift] = [() => this.#details(), () => this.#state?.drift ?? null];
    this.#face = new Face(this.#t, options, { screen, details, drift, ...this.#actions.host() });
    this.#playback = new Playback(this.#face.screen);
    const [least, usual] = HEIGHTS[options.trains ? "trains" : (options.steering ?? "none")];
    addElement(node, "live", this.#face.element, () => least);
    growTo(node, [WIDTH, node.computeSize()[1] + usual - least]);
    this.#stopListening = onWaiting((waiting) => {
      this.#messages.waiting = waiting;
      this.#wake();
    });
    after(node, "onRemoved", () => this.remove());
    for (const change of ["onAdded", "onConfigure", "onConnectionsChange"])
      after(node, change, () => queueMicrotask(() => this.#face.bar?.rewired()));
    this.#wake();
  }

  get run() {
    return this.#run;
  }

  get #queue() {
    return this.#playback.queue;
  }

  // messages of the server --------------------------------------------------------------------------------------------

  /**
   * @param {RunState} state
   * @param {boolean} joined whether the run began, and perhaps ended, before this player could show it
   */
  showState(state, joined = false) {
    if (this.#formerRuns.has(state.run)) return;
    if (joined && state.run !== this.#run && isLive(this.#state) && !isLive(state)) return;
    const missedFrames = joined && (state.run !== this.#run || isLive(state));
    const begins = !joined && isLive(state) && state.run !== this.#state?.run;
    if (state.run !== this.#run) this.#begin(state.run);
    const now = clock();
    this.#state = state;
    if (state.fps !== this.#queue.fps) this.#queue.setFps(state.fps, now);
    if (missedFrames && state.frames) this.#queue.join(state.frames, state.first_frame, now);
    this.#queue.forget(state.first_frame);
    if (state.state === "paused") this.#queue.excuse(now);
    if (!isLive(state)) this.#queue.finish(now);
    this.#playback.openAt(state.first_new);
    if (state.video) this.showVideo(state.video);
    this.#face.bar?.show(state);
    this.#face.curve?.show(state.training);
    if (begins && this.#actions.keys.steer) this.#face.takeKeys();
    this.#wake();
  }

  /** @param {FramesMessage} message */
  addFrames(message) {
    if (this.#formerRuns.has(message.run)) return;
    if (message.run !== this.#run) this.#begin(message.run);
    this.#queue.add(message, clock());
    if (message.chunk < 0) this.#queue.skipOld(clock()); // it opens at what is new
    this.#wake();
  }

  /** @param {WithdrawnMessage} message */
  withdraw({ run, first }) {
    if (run !== this.#run) return;
    this.#queue.withdraw(first, clock());
    this.#face.screen.forget();
    this.#wake();
  }

  /**
   * Shows the result of the node. ComfyUI sends a cached one again, perhaps long after its run.
   *
   * @param {{sf_run?: any[], sf_video?: ServerFile[]} | null} output
   */
  showResult(output) {
    const [state] = output?.sf_run ?? [];
    const [file] = output?.sf_video ?? [];
    if (state && !isState(state)) return;
    if (state) this.#formerRuns.delete(state.run);
    if (state && !(state.run === this.#run && this.#state)) this.showState(state, true);
    if (file) this.showVideo(file);
  }

  /**
   * Shows the finished video in place of the frames, from the same moment on.
   *
   * @param {ServerFile} file
   */
  showVideo(file) {
    this.#playback.showVideo(fileUrl(file));
  }

  /**
   * Takes what ComfyUI would show below the player while the node works.
   *
   * @param {string} text
   */
  showProgress(text) {
    this.#messages.showProgress(text);
    this.#wake();
  }

  remove() {
    cancelAnimationFrame(this.#animation);
    this.#animation = -1;
    this.#stopListening();
    this.#actions.remove();
    this.#face.remove();
  }

  /** @param {string} run */
  #begin(run) {
    if (this.#run) this.#formerRuns.add(this.#run);
    if (this.#formerRuns.size > FORMER_RUNS) this.#formerRuns.delete([...this.#formerRuns][0]);
    [this.#run, this.#state] = [run, null];
    this.#messages.showProgress("");
    [this.#rate, this.#said] = [new DrawnRate(), ""];
    this.#actions.begin();
    this.#playback.begin(Boolean(setting(LOOP_SETTING)));
  }

  /**
   * Fetches a picture that is no longer in memory, or the nearest one that still is.
   *
   * @param {number} number
   */
  async #fetch(number) {
    const [run, queue] = [this.#run, this.#queue];
    try {
      const picture = await getBlob(`/self_forcing/frames/${run}/${number}`);
      queue.keep(number, picture);
      return picture;
    } catch {
      return queue.pictureOf(number)?.picture;
    }
  }

  // drawing -----------------------------------------------------------------------------------------------------------

  /** Whether there is nothing to show: of a run that continues a video, not before all of that is there. */
  get #isEmpty() {
    const { empty, end } = this.#queue;
    return !this.#face.screen.showsVideo && (empty || end < (this.#state?.first_new ?? 0));
  }

  get #grid() {
    return this.#state && !this.#options.trains ? chunkGrid(this.#state, this.#queue.longest) : null;
  }

  /** Draws after a change, and continues while something plays. */
  #wake() {
    if (this.#animation < 0) return;
    this.#draw(clock());
    this.#refresh();
    if (!this.#animation && this.#playback.moves) this.#animation = requestAnimationFrame(() => this.#tick());
  }

  #tick() {
    this.#animation = 0;
    const now = clock();
    this.#draw(now);
    if (!this.#playback.moves) return this.#refresh();
    if (now - this.#refreshed > REFRESH) this.#refresh();
    this.#animation = requestAnimationFrame(() => this.#tick());
  }

  /** @param {number} now */
  #draw(now) {
    const number = this.#face.screen.showsVideo ? null : this.#queue.at(now);
    if (number === null || this.#isEmpty) return;
    // while paused there is time to fetch the very frame, if it was left out
    const exact = !this.#queue.playing && !this.#queue.has(number);
    this.#face.screen.want(exact ? { number, picture: undefined } : this.#queue.pictureOf(number));
  }

  /** Updates all but the picture. */
  #refresh() {
    const [state, face, playback] = [this.#state, this.#face, this.#playback];
    const live = isLive(state);
    this.#refreshed = clock();
    face.showHint(live || state?.frames || face.screen.size ? "" : this.#hint());
    this.#showPosition();
    face.controls.show({ ...this.#behind(live), ...{ empty: this.#isEmpty, playing: playback.playing && (live || !this.#isEmpty) }, speed: playback.speed, full: face.full.on });
    const kept = Boolean(state?.session);
    face.showEnd({
      ...{ canContinue: kept, canKeep: kept && !this.#actions.kept },
      canReplay: state !== null && !live && isSteered(state),
    });
    face.message.show(this.#message());
    const status = this.#status();
    face.status.show(status);
    this.#sayOver(status);
  }

  /** @param {boolean} live */
  #behind(live) {
    const { queue } = this.#playback;
    if (!live || this.#face.screen.showsVideo || queue.empty || this.#options.trains) return { behind: null, atNewest: false };
    const behind = Math.round(10 * queue.behind(clock())) / 10;
    return { behind, atNewest: queue.playing && behind < LEAD };
  }

  #showPosition() {
    const [playback, state, { fps }] = [this.#playback, this.#state, this.#queue];
    const { from, to } = playback.moment;
    const [made, grid] = [Math.round(to * fps), this.#grid];
    this.#face.seekBar.show({
      ...{ at: playback.frame, from: Math.round(from * fps), made, buffered: playback.buffered },
      end: grid && isLive(state) ? Math.max(made, grid.end) : made,
      withdrawn: isLive(state) ? this.#queue.withdrawnTo : 0,
      ...{ grid, fps, marks: this.#marksOf(state) },
    });
  }

  /** @param {RunState | null} state */
  #marksOf(state) {
    const [rows, fps, begins] = [state?.rows ?? "", state?.fps ?? 1, state?.begins ?? 0];
    const key = `${fps} ${begins} ${rows}`;
    if (key !== this.#marksKey) [this.#marksKey, this.#marks] = [key, marksOf(rows, fps, begins)];
    return this.#marks;
  }

  #playbackFacts() {
    const [{ late, interruptions, playing }, empty] = [this.#queue, this.#isEmpty];
    const shownFps = this.#state?.state === "running" && playing && this.#playback.moves ? this.#rate.fps(clock()) : null;
    return { frame: this.#playback.frame, empty, late, interruptions, paused: !playing, shownFps };
  }

  #status() {
    if (!this.#state) return idleStatus(this.#t);
    if (this.#options.trains) return trainingStatus(this.#state, this.#t);
    return runStatus(this.#state, this.#playbackFacts(), this.#t);
  }

  #details() {
    if (!this.#state || this.#options.trains) return [];
    const size = this.#face.screen.size?.join(" × ") ?? "";
    return runDetails(this.#state, { ...this.#playbackFacts(), size }, this.#t);
  }

  /** What there is to say below the input. */
  #message() {
    const { bar, endBar } = this.#face;
    const { empty, interruptions } = this.#queue;
    return this.#messages.of({
      ...{ state: this.#state, actions: this.#actions, bar: bar?.message ?? null, empty, interruptions, keys: this.#actions.keys.message },
      ...{ steers: bar !== null, ends: endBar !== null, trains: this.#options.trains ?? false },
    });
  }

  /**
   * Says over the picture that the state of the run has changed. What the viewer does is shown where it is done.
   *
   * @param {import("./status.js").Status} status
   */
  #sayOver({ state, tone }) {
    const run = this.#state?.state ?? "";
    if (run === this.#said) return;
    const [before, drawing] = [this.#said, BEZELS[run]];
    this.#said = run;
    if (before && drawing && !this.#options.trains) this.#face.bezel.flash(drawing, tone === "live" ? "" : state);
  }

  /** What to do where there is no picture. */
  #hint() {
    if (this.#options.trains) return this.#t("training.nothingYet");
    if (this.#options.steering !== "stop") return this.#t("player.nothingYet");
    return this.#t(this.#state?.state === "ended" ? "player.hasNoVae" : "player.wireVae");
  }
}
