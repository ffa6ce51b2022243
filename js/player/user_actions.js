import { make, saveAs } from "../lib/dom.js";
import { originOf } from "../lib/editor.js";
import { widgetOf } from "../lib/widgets.js";
import { fileUrl, post } from "../lib/server.js";
import { replay } from "../replay/replay.js";
import { continueRun } from "../sessions/continue.js";
import { BoundKeys } from "./bound_keys.js";
import { chunkBeside } from "./chunk_grid.js";
import { promptsOf } from "./marks.js";
import { PromptHistory } from "./prompt_history.js";
import { isLive } from "./runs.js";

const INFORMED = 4000; // milliseconds for which it says what the user has just done
const HISTORY = "SelfForcing.Prompts"; // in the storage of the page

/**
 * @typedef {object} PlayerParts
 * @property {() => import("./face.js").Face} face
 * @property {() => import("./playback.js").Playback} playback
 * @property {() => import("../lib/messages.js").RunState | null} state
 * @property {() => import("./chunk_grid.js").ChunkGrid | null} grid
 * @property {() => void} changed
 */

/** What the user does on a player, and what is said of it. */
export class UserActions {
  /** What to say of the last action, for a moment. */
  information = "";
  /** Name under which the run's session was saved. */
  kept = "";
  /** Keys that the user has bound. */
  keys;
  #node;
  #t;
  #parts;
  #timer = 0;
  /** @type {import("./menu.js").Size} */
  #size = "fit";

  /**
   * @param {ComfyNode} node
   * @param {Translate} t
   * @param {PlayerParts} parts
   */
  constructor(node, t, parts) {
    this.#node = node;
    this.#t = t;
    this.#parts = parts;
    this.keys = new BoundKeys(node, t, parts);
  }

  /** A new run begins. */
  begin() {
    this.kept = "";
  }

  remove() {
    clearTimeout(this.#timer);
  }

  /** @returns {Omit<import("./face.js").FaceHost, "screen" | "details" | "drift">} */
  host() {
    const { playback, changed } = this.#parts;
    /** @type {(act: (playback: import("./playback.js").Playback) => void) => void} */
    const change = (act) => {
      act(playback());
      changed();
    };
    return {
      ...{ steering: this.#steering(), menu: this.#menu(change), menuState: () => this.#menuState(), changed },
      end: { goOn: () => this.#continue(), keep: () => this.#keep(), replay: () => this.#replay() },
      failed: (error) => this.#inform(this.#t("player.refused", { why: error.message })),
      toggle: () => this.#toggle(),
      step: (frames) => change((playback) => playback.step(frames)),
      stepChunk: (direction) => change((playback) => this.#stepChunk(playback, direction)),
      seek: (frame) => change((playback) => playback.seek(frame / playback.queue.fps)),
      keys: this.keys,
      begin: () => change((playback) => playback.seek(playback.moment.from)),
      live: () => change((playback) => this.#goLive(playback)),
    };
  }

  /** @returns {import("./steering_bar.js").SteeringHost} */
  #steering() {
    return {
      send: (body) => post("/self_forcing/steer", body),
      changed: this.#parts.changed,
      takesPrompts: () => this.#origin("clip") !== null,
      offered: () => promptsOf([this.#parts.state()?.rows ?? "", this.#timelineRows()]),
      history: new PromptHistory({
        read: () => JSON.parse(sessionStorage.getItem(HISTORY) ?? "[]"),
        write: (prompts) => sessionStorage.setItem(HISTORY, JSON.stringify(prompts)),
      }),
    };
  }

  /** @type {(change: (act: (playback: import("./playback.js").Playback) => void) => void) => import("./menu.js").MenuActions} */
  #menu(change) {
    return {
      speed: (speed) => change((playback) => (playback.speed = speed)),
      loop: () => change((playback) => playback.toggleLoop()),
      size: (size) => {
        this.#size = size;
        this.#parts.face().setSize(size);
      },
      blend: (chunks) => this.#parts.face().bar?.setBlend(chunks),
      copy: () => this.#copyFrame(),
      save: () => this.#saveFrame(),
      download: () => this.#download(),
    };
  }

  /** @returns {import("./menu.js").MenuState} */
  #menuState() {
    const [{ speed, loops }, face] = [this.#parts.playback(), this.#parts.face()];
    return {
      ...{ speed, loops, size: this.#size, blend: face.takesAll && face.bar ? face.bar.blend : null },
      ...{ hasPicture: face.screen.size !== null, hasVideo: this.#file !== null },
      keys: face.takesAll ? this.keys : null,
    };
  }

  #toggle() {
    const [playback, { bezel, screen }] = [this.#parts.playback(), this.#parts.face()];
    if (!screen.showsVideo && playback.queue.empty) return;
    bezel.flash(playback.playing ? "pause" : "play");
    playback.toggle();
    this.#parts.changed();
  }

  /** @type {(playback: import("./playback.js").Playback, direction: 1 | -1) => void} */
  #stepChunk(playback, direction) {
    const grid = this.#parts.grid();
    if (grid) playback.go(chunkBeside(grid, playback.frame, direction));
  }

  /** @param {import("./playback.js").Playback} playback */
  #goLive(playback) {
    if (isLive(this.#parts.state())) playback.goLive();
    else playback.seek(playback.moment.to - 1 / playback.queue.fps);
  }

  async #copyFrame() {
    const picture = await this.#parts.face().screen.snapshot();
    if (!picture) return;
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
      this.#inform(this.#t("player.copied"));
    } catch {
      await this.#saveFrame(); // the page has no access to the clipboard
    }
  }

  async #saveFrame() {
    const picture = await this.#parts.face().screen.snapshot();
    if (!picture) return;
    saveAs(picture, `frame_${this.#parts.playback().frame}.png`);
    this.#inform(this.#t("player.frameSaved"));
  }

  /** The file of the video, or of what there is of it so far. */
  get #file() {
    const state = this.#parts.state();
    return state?.video ?? state?.video_so_far ?? null;
  }

  #download() {
    const file = this.#file;
    if (file) make("a", { href: fileUrl(file), download: file.filename }).click();
  }

  #continue() {
    const session = this.#parts.state()?.session;
    if (session) continueRun(this.#node, session);
  }

  async #keep() {
    const session = this.#parts.state()?.session;
    if (!session) return;
    const { name } = await post("/self_forcing/keep", { session });
    this.kept = name.replace(/\.session$/i, "");
    this.#parts.changed();
  }

  #replay() {
    const state = this.#parts.state();
    if (state) replay(this.#node, state);
  }

  /** @param {string} text */
  #inform(text) {
    clearTimeout(this.#timer);
    this.information = text;
    this.#parts.changed();
    if (text) this.#timer = setTimeout(() => this.#inform(""), INFORMED);
  }

  /** What an input of the node is wired to. @param {string} input */
  #origin(input) {
    return this.#node.graph ? originOf(this.#node, input) : null; // a new node is in no graph yet
  }

  /** The rows of the Prompt Timeline that is wired to the node. */
  #timelineRows() {
    const timeline = this.#origin("timeline")?.node;
    const rows = timeline ? widgetOf(timeline, "rows")?.value : "";
    return typeof rows === "string" ? rows : "";
  }
}
