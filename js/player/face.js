import { make } from "../lib/dom.js";
import { Bezel } from "./bezel.js";
import { createControls } from "./controls.js";
import { createEndBar } from "./end_bar.js";
import { FullScreen } from "./full_screen.js";
import { keepEvents, listenToKeys, takesText } from "./keyboard.js";
import { LossCurve } from "./loss_curve.js";
import { fillMenu } from "./menu.js";
import { MessageLine } from "./message_line.js";
import { Screen } from "./screen.js";
import { SeekBar } from "./seek_bar.js";
import { StatusLine } from "./status_line.js";
import { SteeringBar } from "./steering_bar.js";
import { STYLE } from "./style.js";

/**
 * @typedef {object} FaceHost what the elements ask for, and what the user does
 * @property {ConstructorParameters<typeof Screen>[0]} screen
 * @property {import("./steering_bar.js").SteeringHost} steering
 * @property {import("./menu.js").MenuActions} menu
 * @property {import("./end_bar.js").EndActions} end
 * @property {() => import("./menu.js").MenuState} menuState
 * @property {() => import("./status.js").Details} details
 * @property {() => import("../lib/messages.js").RunState["drift"]} drift
 * @property {() => void} toggle
 * @property {(frames: number) => void} step
 * @property {(chunks: 1 | -1) => void} stepChunk
 * @property {(frame: number) => void} seek
 * @property {() => void} begin
 * @property {() => void} live
 * @property {import("./bound_keys.js").BoundKeys} keys that the user has bound
 * @property {() => void} changed
 * @property {(error: Error) => void} failed
 */

const CLICK = 4; // pixels that a pointer may move in a click

/** The elements of a player, from the picture to the line of facts. It decides nothing. */
export class Face {
  #t;
  #host;
  screen;
  bezel = new Bezel();
  seekBar;
  controls;
  /** @type {SteeringBar | null} */
  bar = null;
  /** @type {ReturnType<typeof createEndBar> | null} of a node that samples chunks */
  endBar = null;
  /** Whether runs take prompts and all other actions, and not just Stop. */
  takesAll;
  /** @type {LossCurve | null} */
  curve = null;
  message;
  status;
  full;
  #hint = make("div", { className: "sf-hint" });
  element;

  /**
   * @param {Translate} t
   * @param {import("./player.js").Options} options
   * @param {FaceHost} host
   */
  constructor(t, { steering, trains }, host) {
    this.#t = t;
    this.#host = host;
    this.screen = new Screen(host.screen);
    this.screen.element.classList.add("sf-fit");
    this.seekBar = new SeekBar(t, host.seek);
    this.takesAll = steering === "all";
    if (steering) [this.bar, this.endBar] = [new SteeringBar(t, host.steering), createEndBar(t, host.end, host.failed)];
    if (trains) this.curve = new LossCurve(t);
    const ofRun = this.bar && this.endBar ? [this.bar.stop, this.endBar.element] : [];
    this.controls = createControls(t, this.#actions(), this.takesAll ? [] : ofRun);
    this.message = new MessageLine(t);
    this.status = new StatusLine(t, host.details, host.drift);
    this.element = this.#assemble();
    this.full = new FullScreen(this.element, host.changed);
  }

  /** @returns {import("./controls.js").Actions} */
  #actions() {
    const { toggle, step, live, menu, menuState } = this.#host;
    return {
      ...{ toggle, step, live, normalSpeed: () => menu.speed(1), full: () => this.#toggleFull() },
      fillMenu: (panel) => fillMenu(panel, menuState(), menu, this.#t),
    };
  }

  #toggleFull() {
    this.full.toggle().catch(this.#host.failed);
  }

  #assemble() {
    const stage = make("div", { className: "sf-stage" }, this.screen.element, this.#hint, this.bezel.element);
    this.#listenToClicks(stage);
    const slot = this.takesAll && this.bar && this.endBar ? [make("div", { className: "sf-slot" }, this.bar.element, this.endBar.element)] : [];
    const curve = this.curve ? [this.curve.element] : [];
    const lines = [this.message.element, this.status.element];
    const below = make("div", { className: "sf-below" }, ...curve, this.seekBar.element, this.controls.element, ...slot, ...lines);
    keepEvents(below);
    const properties = { className: "sf-player", tabIndex: 0, role: "group", "aria-label": this.#t("player.title") };
    const element = make("div", properties, make("style", { textContent: STYLE }), stage, below);
    listenToKeys(element, this.#keys(), (name) => this.#host.keys.actionOf(name));
    for (const type of ["focusin", "focusout"]) element.addEventListener(type, this.#host.changed);
    return element;
  }

  /** Whether keys that are pressed now are the player's. */
  get hasKeys() {
    return this.element.contains(document.activeElement) && !takesText(document.activeElement);
  }

  /** Takes the keys, unless the user types something. */
  takeKeys() {
    const { activeElement } = document;
    const types = takesText(activeElement) || activeElement?.closest("[contenteditable], select, [role=dialog]");
    if (!types) this.element.focus({ preventScroll: true });
  }

  /** The keys that the player takes for itself. */
  get ownKeys() {
    return Object.keys(this.#keys());
  }

  /** @returns {Record<string, () => void>} */
  #keys() {
    const { toggle, step, stepChunk, begin, live } = this.#host;
    const [back, forth] = [() => step(-1), () => step(1)];
    const steering = /** @type {const} */ ({ c: "cut", r: "reroll", p: "pause" });
    const actions = Object.entries(steering).map(([key, action]) => [key, () => this.bar?.act(action)]);
    return {
      ...{ " ": toggle, Home: begin, End: live, f: () => this.#toggleFull() },
      ...{ ArrowLeft: back, ArrowDown: back, ArrowRight: forth, ArrowUp: forth },
      ...{ "Shift+ArrowLeft": () => stepChunk(-1), "Shift+ArrowRight": () => stepChunk(1) },
      ...(this.takesAll ? { ...Object.fromEntries(actions), "/": () => this.bar?.focusPrompt() } : {}),
    };
  }

  /**
   * A click plays or pauses; a press that moves drags the node. While keys steer, the first click only lets the player have
   * them.
   *
   * @param {HTMLElement} stage
   */
  #listenToClicks(stage) {
    let [x, y, hadKeys] = [0, 0, false];
    stage.addEventListener("pointerdown", (event) => ([x, y, hadKeys] = [event.clientX, event.clientY, this.hasKeys]));
    stage.addEventListener("click", (event) => {
      if (Math.hypot(event.clientX - x, event.clientY - y) > CLICK) return;
      if (hadKeys || !this.#host.keys.steer) return this.#host.toggle();
      this.element.focus({ preventScroll: true });
    });
    stage.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      this.#toggleFull();
    });
  }

  /** @param {string} text in place of a picture; "": none */
  showHint(text) {
    if (this.#hint.textContent !== text) this.#hint.textContent = text;
    this.#hint.hidden = !text;
  }

  /** @param {import("./menu.js").Size} size */
  setSize(size) {
    this.screen.element.classList.toggle("sf-fit", size === "fit");
    const zoom = { fit: "", natural: "1", double: "2" }[size];
    for (const part of [this.screen.canvas, this.screen.video]) part.style.zoom = zoom;
  }

  /**
   * Shows either what a live run takes or the buttons of an ended one, in the same room.
   *
   * @param {{canContinue: boolean, canKeep: boolean, canReplay: boolean}} can
   */
  showEnd(can) {
    if (!this.bar || !this.endBar) return;
    const ended = Object.values(can).some(Boolean);
    this.endBar.show(can);
    (this.takesAll ? this.bar.element : this.bar.stop).hidden = ended;
    this.endBar.element.hidden = !ended;
  }

  remove() {
    this.full.remove();
    this.seekBar.remove();
    this.screen.remove();
  }
}
