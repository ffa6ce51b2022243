import { make } from "../lib/dom.js";
import { chunkAt } from "./chunk_grid.js";
import { chunksPerLine, describeMark, nearestMark } from "./marks.js";

/**
 * @typedef {import("./chunk_grid.js").ChunkGrid} ChunkGrid
 * @typedef {import("./marks.js").Mark} Mark
 *
 * @typedef {object} SeekView all in frames
 * @property {number} at
 * @property {number} from the first frame that can be shown
 * @property {number} made the number after that of the newest frame
 * @property {number} end of the bar: the planned end, or `made`
 * @property {[number, number]} buffered what is in memory
 * @property {number} withdrawn the number after that of the last frame that a re-roll took back; `made` or less: none
 * @property {ChunkGrid | null} grid
 * @property {Mark[]} marks
 * @property {number} fps
 */

const REACH = 6; // pixels within which a click is meant for a mark

/** The bar of the whole video: where one is, what is made, and what was changed where. */
export class SeekBar {
  #t;
  #seek;
  /** @type {SeekView} */
  #view = { at: 0, from: 0, made: 0, end: 1, buffered: [0, 0], withdrawn: 0, grid: null, marks: [], fps: 16 };
  #width = 0; // pixels
  #dragging = false;
  /** @type {Mark[]} */
  #drawnMarks = [];
  /** @type {Map<string, string | number>} what was set on the bar, so that nothing is set twice */
  #set = new Map();
  #marks = make("div", { className: "sf-marks" });
  #tip = make("div", { className: "sf-tip", hidden: true });
  #track = make(
    "div",
    { className: "sf-track" },
    ...["made", "buffered", "played", "withdrawn", "chunks"].map((part) => make("div", { className: `sf-${part}` })),
  );
  #observer = new ResizeObserver(([entry]) => {
    this.#width = entry.contentRect.width;
    this.show(this.#view);
  });

  /**
   * @param {Translate} t
   * @param {(frame: number) => void} seek
   */
  constructor(t, seek) {
    this.#t = t;
    this.#seek = seek;
    const slider = { role: "slider", tabIndex: 0, "aria-label": t("player.position"), "aria-valuemin": 0 };
    const thumb = make("div", { className: "sf-thumb" });
    this.element = make("div", { className: "sf-seek", ...slider }, this.#track, this.#marks, thumb, this.#tip);
    this.#observer.observe(this.#track);
    this.#listen();
  }

  remove() {
    this.#observer.disconnect();
  }

  #listen() {
    const { element } = this;
    element.addEventListener("pointerdown", (event) => {
      if (event.button || element.ariaDisabled === "true") return;
      element.setPointerCapture(event.pointerId);
      this.#dragging = true;
      const near = this.#markAt(event);
      this.#go(near ? near.frame : this.#frameAt(event));
    });
    element.addEventListener("pointermove", (event) => {
      this.#showTip(event);
      if (this.#dragging) this.#go(this.#frameAt(event));
    });
    const end = () => {
      this.#dragging = false;
      this.#tip.hidden = true;
    };
    for (const type of ["pointerup", "pointercancel"]) element.addEventListener(type, () => (this.#dragging = false));
    element.addEventListener("pointerleave", end);
  }

  /** @param {number} frame */
  #go(frame) {
    const { from, made } = this.#view;
    this.#seek(Math.max(from, Math.min(frame, made - 1)));
  }

  /** @param {PointerEvent} event */
  #frameAt({ clientX }) {
    const { from, end } = this.#view;
    const { left, width } = this.#track.getBoundingClientRect();
    return Math.floor(from + Math.max(0, Math.min((clientX - left) / width, 1)) * (end - from));
  }

  /** @param {PointerEvent} event */
  #markAt(event) {
    const { from, end, marks } = this.#view;
    return nearestMark(marks, this.#frameAt(event), (REACH * (end - from)) / Math.max(1, this.#width));
  }

  /** @param {PointerEvent} event */
  #showTip(event) {
    const { from, end, grid, fps, made } = this.#view;
    this.#tip.hidden = made <= from;
    if (this.#tip.hidden) return;
    const mark = this.#markAt(event);
    const frame = mark ? mark.frame : this.#frameAt(event);
    const chunk = grid ? chunkAt(grid, frame) : 0;
    const place = [
      this.#t("player.second", { n: (frame / fps).toFixed(2) }),
      chunk ? this.#t("player.chunk", { n: chunk }) : "",
    ];
    this.#tip.replaceChildren(place.filter(Boolean).join(" · "), ...(mark ? [make("b", {}, describeMark(mark, this.#t))] : []));
    this.#tip.style.setProperty("--at", String((frame - from) / Math.max(1, end - from)));
  }

  /** @param {SeekView} view */
  show(view) {
    this.#view = view;
    const { at, from, made, buffered, withdrawn, grid, fps } = view;
    const span = Math.max(1, view.end - from);
    /** @param {number} frame */
    const part = (frame) => Math.max(0, Math.min((frame - from) / span, 1)).toFixed(5);
    this.#style({ at: part(at), made: part(made), from, span });
    this.#style({ b0: part(buffered[0]), b1: part(buffered[1]), w0: part(made), w1: part(Math.max(made, withdrawn)) });
    if (grid) this.#showChunks(grid, span);
    else this.#style({ c0: 1, c1: 1 });
    this.#showMarks(view.marks);
    this.#attribute("aria-valuemin", (from / fps).toFixed(2));
    this.#attribute("aria-valuemax", (Math.max(from, made - 1) / fps).toFixed(2));
    this.#attribute("aria-valuenow", (at / fps).toFixed(2));
    this.#attribute("aria-valuetext", this.#t("player.time", { at: (at / fps).toFixed(2), to: (made / fps).toFixed(2) }));
    this.#attribute("aria-disabled", String(made <= from));
  }

  /** @type {(grid: ChunkGrid, span: number) => void} */
  #showChunks({ second, length }, span) {
    const step = length * chunksPerLine((length / span) * this.#width);
    const { from, end } = this.#view;
    const first = second + Math.max(0, Math.ceil((from - second) / step)) * step;
    const left = first - step;
    const shown = Math.max(1, end - left);
    this.#style({ c0: ((left - from) / span).toFixed(5), c1: (shown / span).toFixed(5), c2: (step / shown).toFixed(6) });
  }

  /** @param {Mark[]} marks */
  #showMarks(marks) {
    if (marks === this.#drawnMarks) return;
    this.#drawnMarks = marks;
    const elements = marks.map(({ frame, kinds }) => {
      const mark = make("i", { className: kinds.map((kind) => `sf-${kind}-mark`).join(" ") });
      mark.style.setProperty("--frame", String(frame));
      return mark;
    });
    this.#marks.replaceChildren(...elements);
  }

  /** @param {Record<string, string | number>} values */
  #style(values) {
    for (const [name, value] of Object.entries(values)) {
      if (this.#set.get(name) === value) continue;
      this.#set.set(name, value);
      this.element.style.setProperty(`--${name}`, String(value));
    }
  }

  /** @type {(name: string, value: string) => void} */
  #attribute(name, value) {
    if (this.element.getAttribute(name) !== value) this.element.setAttribute(name, value);
  }
}
