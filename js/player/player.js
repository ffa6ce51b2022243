import { make, saveAs } from "../lib/dom.js";
import { addElement, after, locale, setting, toast } from "../lib/editor.js";
import { translator } from "../lib/i18n.js";
import { isState } from "../lib/messages.js";
import { fileUrl, getBlob, post } from "../lib/server.js";
import { replay } from "../replay/replay.js";
import { BadgeLines, EMPTY_BADGE, runBadge } from "./badge.js";
import { createControls } from "./controls.js";
import { keepEvents, listenToKeys } from "./keyboard.js";
import { LossCurve, trainingBadge } from "./loss_curve.js";
import { Note } from "./note.js";
import { Playback, clock } from "./playback.js";
import { isLive, isSteered } from "./runs.js";
import { Screen } from "./screen.js";
import { createSteeringBar } from "./steering_bar.js";
import { STYLE } from "./style.js";

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 * @typedef {import("../lib/messages.js").FramesMessage} FramesMessage
 * @typedef {import("../lib/messages.js").WithdrawnMessage} WithdrawnMessage
 * @typedef {import("../lib/messages.js").ServerFile} ServerFile
 * @typedef {import("./controls.js").Size} Size
 * @typedef {{steering?: import("./steering_bar.js").Steering, trains?: boolean}} Options steering: actions that runs of
 *   the node take; trains: whether they are trainings, whose frames are samples
 */

export const LOOP_SETTING = "SelfForcing.Player.Loop";
const HEIGHTS = { all: 320, stop: 180, none: 220 }; // pixels, at least, by the steering
const REFRESH = 0.2; // seconds between two updates of the badge while something plays
/** @type {Size[]} */
const SIZES = ["fit", "natural", "double"];

/**
 * The player on a node: shows a run's frames as they come and then its video, and steers the run.
 *
 * It is drawn by its own elements, alike in the classic canvas and in Nodes 2.0. Neither saved workflows nor prompts hold
 * it.
 */
export class Player {
  #node;
  #t = translator(locale());
  /** @type {RunState | null} */
  #state = null;
  /** @type {string | null} */
  #run = null;
  /** @type {Set<string>} */
  #formerRuns = new Set(); // late messages of these are ignored
  #size = SIZES[0];
  #animation = 0; // handle of the next animation frame; -1 after remove()
  #refreshed = 0; // when the badge was updated

  #screen;
  /** @type {Playback} */
  #playback;
  #controls;
  #bar;
  #note; // of a node without a bar
  #curve;
  #hint = make("div", { className: "sf-hint" });
  #lines = new BadgeLines();
  #frame; // the picture with the badge over it
  #element;

  /**
   * @param {ComfyNode} node
   * @param {Options} options
   */
  constructor(node, { steering, trains = false } = {}) {
    this.#node = node;
    this.#screen = new Screen({
      fetch: (number) => this.#fetch(number),
      drawn: () => this.#queue.drawn(clock()),
      changed: () => this.#wake(),
    });
    this.#playback = new Playback(this.#screen);
    this.#controls = createControls(this.#t, {
      toggle: () => this.#change((playback) => playback.toggle()),
      seek: (seconds) => this.#change((playback) => playback.seek(seconds)),
      loop: () => this.#change((playback) => playback.toggleLoop()),
      live: () => this.#change((playback) => playback.goLive()),
      size: () => this.#resize(),
      snapshot: () => this.#snapshot(),
      replay: () => this.#replay(),
    });
    /** @param {object} body */
    const send = (body) => post("/self_forcing/steer", body);
    this.#bar = steering ? createSteeringBar(this.#t, steering, send, this.#showRefusal) : null;
    this.#note = steering ? null : new Note();
    this.#curve = trains ? new LossCurve(this.#t) : null;
    this.#hint.textContent = this.#hintFor(steering);
    this.#frame = this.#makeFrame();
    const height = HEIGHTS[steering ?? "none"];
    this.#element = this.#makeElement();
    addElement(node, "live", this.#element, () => height);
    after(node, "onRemoved", () => this.remove());
    this.#refresh();
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
    if (state.run !== this.#run) this.#begin(state.run);
    const now = clock();
    this.#state = state;
    if (state.fps !== this.#queue.fps) this.#queue.setFps(state.fps, now);
    if (missedFrames && state.frames) this.#queue.join(state.frames, state.first_frame, now);
    this.#queue.forget(state.first_frame);
    if (state.state === "paused") this.#queue.excuse(now);
    if (!isLive(state)) this.#queue.finish(now);
    if (state.video) this.showVideo(state.video);
    this.#bar?.show(state);
    this.#note?.show(state.note);
    this.#curve?.show(state.training);
    this.#wake();
  }

  /** @param {FramesMessage} message */
  addFrames(message) {
    if (this.#formerRuns.has(message.run)) return;
    if (message.run !== this.#run) this.#begin(message.run);
    this.#queue.add(message, clock());
    this.#wake();
  }

  /** @param {WithdrawnMessage} message */
  withdraw({ run, first }) {
    if (run !== this.#run) return;
    this.#queue.withdraw(first, clock());
    this.#screen.forget();
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

  remove() {
    cancelAnimationFrame(this.#animation);
    this.#animation = -1;
    this.#screen.remove();
  }

  /** @param {string} run */
  #begin(run) {
    if (this.#run) this.#formerRuns.add(this.#run);
    [this.#run, this.#state] = [run, null];
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

  // actions of the user -----------------------------------------------------------------------------------------------

  /** @param {(playback: Playback) => void} change */
  #change(change) {
    change(this.#playback);
    this.#wake();
  }

  #resize() {
    this.#size = SIZES[(SIZES.indexOf(this.#size) + 1) % SIZES.length];
    this.#screen.element.classList.toggle("sf-fit", this.#size === "fit");
    const zoom = { fit: "", natural: "1", double: "2" }[this.#size];
    for (const part of [this.#screen.canvas, this.#screen.video]) part.style.zoom = zoom;
    this.#refresh();
  }

  async #snapshot() {
    const picture = await this.#screen.snapshot();
    if (!picture) return;
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
      toast("success", this.#t("player.copied"));
    } catch {
      saveAs(picture, "frame.png"); // the page has no access to the clipboard
      toast("success", this.#t("player.downloaded"));
    }
  }

  #replay() {
    try {
      if (this.#state) replay(this.#node, this.#state);
    } catch (error) {
      this.#showRefusal(/** @type {Error} */ (error));
    }
  }

  /** @param {Error} error */
  #showRefusal = (error) => toast("error", this.#t("player.refused"), error.message);

  // elements ----------------------------------------------------------------------------------------------------------

  #makeFrame() {
    this.#screen.element.append(this.#hint);
    this.#screen.element.classList.add("sf-fit");
    return make("div", { className: "sf-frame" }, this.#screen.element, this.#lines.element);
  }

  #makeElement() {
    const below = [this.#curve, this.#controls, this.#bar, this.#note].flatMap((part) => (part ? [part.element] : []));
    for (const part of below) keepEvents(part);
    const step = (/** @type {number} */ frames) => this.#change((playback) => playback.step(frames));
    const style = make("style", { textContent: STYLE });
    const properties = { className: "sf-player", tabIndex: 0, role: "group", "aria-label": this.#t("player.title") };
    const element = make("div", properties, style, this.#frame, ...below);
    listenToKeys(element, {
      " ": () => this.#change((playback) => playback.toggle()),
      Home: () => this.#change((playback) => playback.seek(playback.moment.from)),
      End: () => this.#change((playback) => playback.seek(playback.moment.to)),
      ...{ ArrowLeft: () => step(-1), ArrowDown: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => step(1) },
    });
    return element;
  }

  /** @param {import("./steering_bar.js").Steering} [steering] */
  #hintFor(steering) {
    if (this.#curve) return this.#t("training.nothingYet");
    return this.#t(steering === "stop" ? "player.wireVae" : "player.nothingYet");
  }

  // drawing -----------------------------------------------------------------------------------------------------------

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
    const number = this.#screen.showsVideo ? null : this.#queue.at(now);
    if (number === null) return;
    // while paused there is time to fetch the very frame, if it was left out
    const exact = !this.#queue.playing && !this.#queue.has(number);
    this.#screen.want(exact ? { number, picture: undefined } : this.#queue.pictureOf(number));
  }

  /** Updates all but the picture. */
  #refresh() {
    const [now, queue, state, video] = [clock(), this.#queue, this.#state, this.#screen.showsVideo];
    const live = isLive(state);
    this.#refreshed = now;
    this.#hint.hidden = video || !this.#screen.canvas.hidden || live;
    this.#controls.element.hidden = !video && queue.empty;
    this.#controls.show({
      ...this.#playback.moment,
      step: 1 / queue.fps,
      playing: this.#playback.playing,
      loops: this.#playback.loops,
      behind: live && !video ? queue.behind(now) : null,
      size: this.#size,
      canReplay: !live && isSteered(state),
    });
    this.#frame.classList.toggle("sf-over", !live);
    this.#lines.show(state ? this.#badgeOf(state, now) : EMPTY_BADGE);
  }

  /** @type {(state: RunState, now: number) => import("./badge.js").Badge} */
  #badgeOf(state, now) {
    if (this.#curve) return trainingBadge(state, this.#t);
    const { empty, late, interruptions, playing } = this.#queue;
    const shownFps = isLive(state) && this.#playback.moves ? this.#queue.shownFps(now) : null;
    return runBadge(state, { empty, late, interruptions, paused: !playing, shownFps }, this.#t);
  }
}
