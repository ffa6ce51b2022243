import { addElement, after, fileUrl, locale, picture, post, saveAs, setting, toast } from "../lib/editor.js";
import { FrameQueue } from "./frame_queue.js";
import { isState } from "../lib/messages.js";
import { createControls, make } from "./controls.js";
import { STYLE } from "./style.js";
import { badge, isLive, isSteered } from "./runs.js";
import { Screen } from "./screen.js";
import { createSteeringBar } from "./steering_bar.js";
import { LossCurve, trainingBadge } from "./loss_curve.js";
import { words } from "../lib/i18n.js";

export const LOOP_SETTING = "SelfForcing.Player.Loop";
const HEIGHTS = { all: 320, stop: 180, undefined: 220 }; // pixels, at least, by what a run can be told
const REFRESH = 0.2; // seconds between two looks at what the badge says, while something plays
const SIZES = ["fit", "natural", "double"];
const KEYS = [" ", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
// what the canvas, or a node of Nodes 2.0, would take for its own when the user's hand is on a control
const KEYBOARD = ["keydown", "keyup", "keypress", "paste", "copy", "cut"];
const HANDS = [...KEYBOARD, "pointerdown", "mousedown", "dblclick", "contextmenu"];

const clock = () => performance.now() / 1000;

/**
 * A place on a node where a run's frames play as they come, then its video, and where the run is steered.
 *
 * Drawn by its own elements, alike in the classic canvas and in Nodes 2.0. No part of saved workflows, nor of prompts.
 */
export class Player {
  #node;
  #said = words(locale());
  #state = null;
  #run = null;
  #past = new Set(); // runs whose last messages may still come
  #queue = new FrameQueue();
  #loops = null; // the user's choice, if there is one
  #paused = false; // by the user
  #size = SIZES[0];
  #frame = 0; // of the browser's, that was asked for
  #refreshed = 0;

  /**
   * @param options {{steering, trains}} steering: what runs of this node can be told, "all", "stop" or nothing;
   *   trains: whether they are trainings, whose frames are samples
   */
  constructor(node, { steering, trains = false } = {}) {
    this.#node = node;
    this.#screen = new Screen({
      fetch: (number) => this.#fetch(number),
      drawn: () => this.#queue.drawn(clock()),
      video: () => this.#wake(),
      error: () => this.#wake(),
    });
    this.#controls = createControls(this.#said, {
      toggle: () => this.#toggle(),
      seek: (seconds) => this.#seek(seconds),
      loop: () => this.#loop(),
      live: () => this.#goLive(),
      size: () => this.#resize(),
      snapshot: () => this.#snapshot(),
      replay: () => this.#replay(),
    });
    const send = (body) => post("/self_forcing/steer", body);
    this.#bar = steering ? createSteeringBar(this.#said, steering, send, this.#refused) : null;
    this.#curve = trains ? new LossCurve(this.#said) : null;
    this.#build(steering);
    this.#refresh();
  }

  #screen;
  #controls;
  #bar;
  #curve;
  #badge;
  #hint;
  #over;
  #element;

  get run() {
    return this.#run;
  }

  // what the server says ----------------------------------------------------------------------------------------------

  /** joined: the run went on, or ended, without this player. */
  showState(state, joined = false) {
    if (this.#past.has(state.run)) return;
    if (joined && state.run !== this.#run && isLive(this.#state) && !isLive(state)) return;
    const late = joined && (state.run !== this.#run || isLive(state));
    if (state.run !== this.#run) this.#begin(state.run);
    const now = clock();
    this.#state = state;
    if (state.fps !== this.#queue.fps) this.#queue.setFps(state.fps, now);
    if (late && state.frames) this.#queue.join(state.frames, state.first_frame, now);
    this.#queue.forget(state.first_frame);
    if (!isLive(state)) this.#queue.finish(now);
    if (state.video) this.showVideo(state.video);
    this.#bar?.show(state);
    this.#curve?.show(state.training);
    this.#wake();
  }

  addFrames(message) {
    if (this.#past.has(message.run)) return;
    if (message.run !== this.#run) this.#begin(message.run);
    this.#queue.add(message, clock());
    this.#wake();
  }

  withdraw({ run, first }) {
    if (run !== this.#run) return;
    this.#queue.withdraw(first, clock());
    this.#screen.forget();
    this.#wake();
  }

  /** What the node returned, perhaps long ago: ComfyUI sends it again when it has the result. */
  showResult(output) {
    const [state] = output?.sf_run ?? [];
    const [file] = output?.sf_video ?? [];
    if (state && !isState(state)) return;
    if (state) this.#past.delete(state.run);
    if (state && !(state.run === this.#run && this.#state)) this.showState(state, true);
    if (file) this.showVideo(file);
  }

  /** The finished video, a file as the server names it, in place of the frames; it goes on from the same moment. */
  showVideo(file) {
    this.#screen.video.loop = this.#loops ?? true;
    this.#screen.showVideo(fileUrl(file), {
      moment: () => (this.#queue.at(clock()) ?? 0) / this.#queue.fps,
      plays: () => !this.#paused,
    });
  }

  remove() {
    cancelAnimationFrame(this.#frame);
    this.#frame = -1;
    this.#screen.remove();
    this.#element.remove();
  }

  #begin(run) {
    if (this.#run) this.#past.add(this.#run);
    [this.#run, this.#state, this.#paused] = [run, null, false];
    this.#queue = new FrameQueue({ fps: this.#queue.fps });
    this.#queue.loop = this.#loops ?? Boolean(setting(LOOP_SETTING));
    this.#screen.clear();
  }

  /** A picture that memory does not hold. */
  async #fetch(number) {
    const [run, queue] = [this.#run, this.#queue];
    try {
      const found = await picture(`/self_forcing/frames/${run}/${number}`);
      queue.keep(number, found);
      return found;
    } catch {
      return queue.pictureOf(number)?.picture; // the nearest one is better than none
    }
  }

  // what the user does ------------------------------------------------------------------------------------------------

  #playing() {
    return this.#screen.showsVideo ? !this.#screen.video.paused : this.#queue.playing;
  }

  #toggle() {
    const [now, video] = [clock(), this.#screen.video];
    this.#paused = this.#playing();
    if (this.#screen.showsVideo && this.#paused) video.pause();
    else if (this.#screen.showsVideo) this.#screen.play();
    else if (this.#paused) this.#queue.pause(now);
    else this.#queue.play(now);
    this.#wake();
  }

  #seek(seconds) {
    const frame = Math.round(seconds * this.#queue.fps);
    // into the middle of the frame: its beginning may be rounded to the one before
    if (this.#screen.showsVideo) this.#screen.video.currentTime = (frame + 0.5) / this.#queue.fps;
    else this.#queue.seek(frame, clock());
    this.#wake();
  }

  #step(frames) {
    if (this.#playing()) this.#toggle();
    this.#seek(this.#moment().at + frames / this.#queue.fps);
  }

  #loop() {
    this.#loops = !(this.#screen.showsVideo ? this.#screen.video.loop : this.#queue.loop);
    this.#screen.video.loop = this.#queue.loop = this.#loops;
    this.#wake();
  }

  #goLive() {
    this.#paused = false;
    this.#queue.goLive(clock());
    this.#wake();
  }

  #resize() {
    this.#size = SIZES[(SIZES.indexOf(this.#size) + 1) % SIZES.length];
    this.#screen.element.classList.toggle("sf-fit", this.#size === "fit");
    const zoom = { fit: "", natural: 1, double: 2 }[this.#size];
    for (const part of [this.#screen.canvas, this.#screen.video]) part.style.zoom = zoom;
    this.#refresh();
  }

  async #snapshot() {
    const taken = await this.#screen.snapshot();
    if (!taken) return;
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": taken })]);
      toast("success", this.#said.copied);
    } catch {
      saveAs(taken, "frame.png"); // the page may not write there
      toast("success", this.#said.downloaded);
    }
  }

  async #replay() {
    try {
      const { replay } = await import("../replay/replay.js");
      await replay(this.#node, this.#state);
    } catch (error) {
      this.#refused(error);
    }
  }

  #refused = (error) => toast("error", this.#said.refused, error.message);

  #onKey(event) {
    const { key, target } = event;
    const typing = target.matches("input:not([type=range])");
    if (typing || !KEYS.includes(key) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    if (key === " " && target.matches("button")) return; // presses it
    event.preventDefault();
    const { from, to } = this.#moment();
    if (key === " ") this.#toggle();
    else if (key === "Home") this.#seek(from);
    else if (key === "End") this.#seek(to);
    else this.#step(key === "ArrowLeft" || key === "ArrowDown" ? -1 : 1);
  }

  // what is seen ------------------------------------------------------------------------------------------------------

  #build(steering) {
    const [said, height] = [this.#said, HEIGHTS[steering]];
    this.#hint = make("div", { className: "sf-hint" }, this.#hintFor(steering));
    this.#screen.element.append(this.#hint);
    this.#screen.element.classList.add("sf-fit");
    this.#badge = ["sf-facts", "sf-status", "sf-note"].map((className) => make("div", { className }));
    this.#badge[1].setAttribute("role", "status");
    this.#over = make("div", { className: "sf-badge" }, ...this.#badge);
    const frame = make("div", { className: "sf-frame" }, this.#screen.element, this.#over);
    const below = [this.#curve, this.#controls, this.#bar].filter(Boolean).map((part) => part.element);
    const properties = { className: "sf-player", tabIndex: 0, role: "group", "aria-label": said.player };
    this.#element = make("div", properties, make("style", { textContent: STYLE }), frame, ...below);
    this.#element.addEventListener("keydown", (event) => this.#onKey(event));
    for (const part of below) for (const type of HANDS) part.addEventListener(type, (event) => this.#keep(event));
    this.#element.style.minHeight = `${height}px`; // an older editor's Nodes 2.0 gives it no height of its own
    addElement(this.#node, "live", this.#element, height);
    after(this.#node, "onRemoved", () => this.remove());
  }

  #hintFor(steering) {
    if (this.#curve) return this.#said.nothingTrained;
    return steering === "stop" ? this.#said.wireVae : this.#said.nothingYet;
  }

  /** Keys go through for the player's own, which keeps those that it knows; all that is typed stays here. */
  #keep(event) {
    if (event.type !== "keydown" || event.target.matches("input:not([type=range])")) event.stopPropagation();
  }

  #moment() {
    const [{ fps, first, end }, video] = [this.#queue, this.#screen.video];
    if (!this.#screen.showsVideo) return { at: (this.#queue.at(clock()) ?? 0) / fps, from: first / fps, to: end / fps };
    // what a video says of its time may be just before the frame that it shows
    return { at: Math.floor(video.currentTime * fps + 0.01) / fps, from: 0, to: video.duration || 0 };
  }

  /** Something has changed: shows it, and goes on by itself while something plays. */
  #wake() {
    if (this.#frame < 0) return;
    this.#show(clock());
    this.#refresh();
    if (!this.#frame && this.#moves()) this.#frame = requestAnimationFrame(() => this.#tick());
  }

  #moves() {
    return this.#screen.showsVideo ? !this.#screen.video.paused : this.#queue.moving(clock());
  }

  #tick() {
    this.#frame = 0;
    const now = clock();
    this.#show(now);
    if (!this.#moves()) return this.#refresh();
    if (now - this.#refreshed > REFRESH) this.#refresh();
    this.#frame = requestAnimationFrame(() => this.#tick());
  }

  #show(now) {
    const number = this.#screen.showsVideo ? null : this.#queue.at(now);
    if (number === null) return;
    // with time to spare, the very frame, if the server has it
    const exact = !this.#queue.playing && !this.#queue.has(number);
    this.#screen.want(exact ? { number, picture: undefined } : this.#queue.pictureOf(number));
  }

  #refresh() {
    const [now, queue, state] = [clock(), this.#queue, this.#state];
    this.#refreshed = now;
    const [live, video] = [isLive(state), this.#screen.showsVideo];
    this.#hint.hidden = video || !this.#screen.canvas.hidden || live;
    this.#controls.element.hidden = !video && queue.empty;
    this.#controls.show({
      ...this.#moment(),
      step: 1 / queue.fps,
      playing: this.#playing(),
      loops: video ? this.#screen.video.loop : queue.loop,
      behind: live && !video ? queue.behind(now) : null,
      sized: this.#size,
      canReplay: !live && isSteered(state),
    });
    this.#over.parentElement.classList.toggle("sf-over", !live);
    const { empty, late, interruptions } = queue;
    const shownFps = live && this.#moves() ? queue.shownFps(now) : null;
    const seen = { empty, late, interruptions, paused: !queue.playing, shownFps };
    const texts = state ? this.#textsOf(state, seen) : {};
    for (const [k, text] of [texts.facts, texts.status, texts.note].entries())
      if (this.#badge[k].textContent !== (text ?? "")) this.#badge[k].textContent = text ?? "";
  }

  #textsOf(state, seen) {
    return this.#curve ? trainingBadge(state, this.#said) : badge(state, seen, this.#said);
  }
}
