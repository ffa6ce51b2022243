import { make } from "../lib/dom.js";
import { after, growTo, locale, undoable } from "../lib/editor.js";
import { addElement, setWidget, widgetOf } from "../lib/widgets.js";
import { formatSecond } from "../lib/format.js";
import { translator } from "../lib/i18n.js";
import { listen } from "../lib/server.js";
import * as axis from "./axis.js";
import { makeBlock, percent } from "./block.js";
import { keepFromCanvas, shareWheel } from "./canvas_events.js";
import { draggable } from "./drag.js";
import { endOf } from "./end.js";
import { askForPrompt } from "./prompt_editor.js";
import { STYLE } from "./style.js";
import { addRow, moveRow, parse, removeRow, setPrompt } from "./text.js";

/**
 * @typedef {import("./axis.js").Block} Block
 * @typedef {ReturnType<typeof makeBlock>} Part the element of a block
 */

const HEIGHT = 120; // pixels, with the editor's margin
/** @type {[number, number]} */
const NEW_NODE = [480, 300]; // pixels, at least
const APART = 2; // seconds from the last row to a new one behind it

/**
 * Adds the timeline to a Prompt Timeline.
 *
 * @param {ComfyNode} node
 */
export function addTimeline(node) {
  const rows = widgetOf(node, "rows");
  if (!rows) return;
  const timeline = new Timeline(node, rows);
  addElement(node, "timeline", timeline.element, () => HEIGHT);
  growTo(node, NEW_NODE);
  after(rows, "callback", () => timeline.draw());
  after(node, "onConfigure", () => timeline.draw()); // a workflow was loaded
  after(node, "onConnectionsChange", () => queueMicrotask(() => timeline.followEnd()));
  const stop = listen("graphChanged", () => timeline.followEnd());
  after(node, "onRemoved", () => {
    stop();
    timeline.stop();
  });
}

/**
 * The timeline widget: rows as blocks on an axis of seconds, to drag, edit, add and remove.
 *
 * The text in the widget `rows` is the only state. The timeline draws it, and each edit is one change of it that can be
 * undone.
 */
class Timeline {
  #t = translator(locale());
  #node;
  #rows;
  /** @type {axis.View | null} */
  #zoomed = null; // the view, if the user chose one
  #view = axis.fit([]);
  /** @type {Block[]} */
  #blocks = []; // in the order of time
  /** @type {Part[]} */
  #parts = []; // of #blocks
  #end = 0; // of the video, in seconds; 0: unknown
  #selected = -1; // place in #blocks of the row that had the focus last
  /** @type {string | null} */
  #dragged = null; // the text if the row is dropped here

  #before = make("div", { className: "sf-timeline-before" }, this.#t("timeline.sessionPrompt"));
  #track = make("div", { className: "sf-timeline-track" }, this.#before);
  #add = make("button", { className: "sf-timeline-add", type: "button" }, "+");
  #axis = make("div", { className: "sf-timeline-axis", title: this.#t("timeline.axisHelp") }, this.#add);
  #errors = make("div", { className: "sf-timeline-errors", role: "status" });
  #time = make("div", { className: "sf-timeline-time" });
  element = make(
    "div",
    { className: "sf-timeline", role: "group", "aria-label": this.#t("timeline.title") },
    make("style", { textContent: STYLE }),
    ...[this.#track, this.#axis, this.#errors],
  );

  stop = shareWheel(this.element, (event) => this.#zoom(event));

  /**
   * @param {ComfyNode} node
   * @param {ComfyWidget} rows
   */
  constructor(node, rows) {
    this.#node = node;
    this.#rows = rows;
    this.#add.title = this.#add.ariaLabel = this.#t("timeline.add");
    this.#listen();
    this.draw();
  }

  /** Draws again if the video that the timeline is wired to has another length now. */
  followEnd() {
    if (endOf(this.#node) !== this.#end) this.draw();
  }

  get #text() {
    return String(this.#rows.value);
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  draw() {
    this.#end = endOf(this.#node);
    const { rows, errors } = parse(this.#dragged ?? this.#text);
    this.#blocks = axis.blocksOf(rows);
    if (this.#dragged === null) this.#view = this.#zoomed ?? axis.fit(rows, this.#end); // stays while a row is dragged
    this.#drawBlocks();
    for (const tick of this.#axis.querySelectorAll(".sf-timeline-tick")) tick.remove();
    this.#axis.prepend(...axis.ticks(this.#view).map((second) => this.#makeTick(second)));
    const texts = errors.map(({ line, message }) => this.#t("timeline.errorInLine", { n: line, what: this.#t(message) }));
    if (!rows.length && !texts.length) texts.push(this.#t("timeline.empty"));
    this.#errors.replaceChildren(...texts.map((text) => make("div", {}, text)));
  }

  #drawBlocks() {
    while (this.#parts.length < this.#blocks.length) this.#parts.push(this.#makePart(this.#parts.length));
    for (const part of this.#parts.splice(this.#blocks.length)) part.element.remove();
    for (const [place, part] of this.#parts.entries()) part.draw(this.#blocks[place], this.#view);
    const free = this.#blocks.length ? axis.shareOf(this.#view, this.#blocks[0].second) : 0;
    this.#before.style.width = percent(Math.min(1, Math.max(0, free)));
    this.#before.style.display = free > 0 ? "" : "none";
  }

  /** @param {number} second */
  #makeTick(second) {
    const tick = make("div", { className: "sf-timeline-tick" }, formatSecond(second));
    tick.style.left = percent(axis.shareOf(this.#view, second));
    return tick;
  }

  /** @param {number} second */
  #showTime(second) {
    this.#time.textContent = `${formatSecond(second)} s`;
    this.#time.style.left = `clamp(28px, ${percent(axis.shareOf(this.#view, second))}, 100% - 28px)`;
    this.#track.append(this.#time);
  }

  /** @param {number} place of a row in #blocks, as below */
  #focus(place) {
    if (!this.#blocks[place]) return;
    if (this.#zoomed) this.#zoomed = axis.showing(this.#zoomed, this.#blocks[place].second);
    this.draw();
    this.#parts[place].element.focus({ preventScroll: true });
  }

  // Edits -------------------------------------------------------------------------------------------------------------

  /**
   * Replaces the text and puts the focus on the row at `second`.
   *
   * @param {string} text
   * @param {number} [second]
   */
  #change(text, second) {
    if (text !== this.#text) undoable(() => setWidget(this.#node, "rows", text));
    this.draw();
    if (second !== undefined) this.#focus(this.#placeOf(second));
  }

  /** @param {number} second */
  #placeOf(second) {
    return this.#blocks.findIndex((block) => block.second === second);
  }

  /**
   * Returns the seconds between which a row can be moved; null: no limit.
   *
   * @param {number} place
   * @returns {[number | null, number | null]}
   */
  #limits(place) {
    return [this.#blocks[place - 1]?.second ?? null, this.#blocks[place + 1]?.second ?? null];
  }

  /** @type {(place: number, second: number) => string} */
  #moved(place, second) {
    return moveRow(this.#text, this.#blocks[place].index, second);
  }

  /** @type {(place: number, direction: number, by: number) => void} */
  #step(place, direction, by) {
    const second = axis.stepped(this.#blocks[place].second, direction, by, ...this.#limits(place));
    if (second !== null) this.#change(this.#moved(place, second), second);
  }

  /** @param {number} place */
  #remove(place) {
    this.#change(removeRow(this.#text, this.#blocks[place].index));
    if (this.#blocks.length) this.#focus(Math.min(place, this.#blocks.length - 1));
    else this.#add.focus({ preventScroll: true });
  }

  /**
   * Adds a row with the prompt that holds there. Without one, asks for it.
   *
   * @param {number} second
   */
  #addAt(second) {
    if (this.#placeOf(second) >= 0) return this.#focus(this.#placeOf(second));
    const prompt = this.#blocks.findLast((block) => block.second < second)?.holding;
    /** @param {string} text */
    const add = (text) => this.#change(addRow(this.#text, second, text), second);
    return prompt ? add(prompt) : this.#ask("", second, add);
  }

  /** Adds a row in the middle of the selected one, or behind the last one, and opens it for its prompt. */
  #addNext() {
    const block = this.#blocks[this.#selected] ?? this.#blocks.at(-1);
    if (!block) return this.#addAt(0);
    const middle = block.end < Infinity ? (block.second + block.end) / 2 : block.second + APART;
    const snapped = (/** @type {number} */ step) => axis.snapped(middle, step, block.second, block.end);
    const second = snapped(axis.SNAP) ?? snapped(axis.FREE);
    if (second === null) return;
    this.#addAt(second);
    if (!this.element.querySelector("textarea")) this.#edit(this.#placeOf(second));
  }

  /** @param {number} place */
  #edit(place) {
    const { index, prompt, second } = this.#blocks[place];
    this.#ask(prompt, second, (text) => this.#change(setPrompt(this.#text, index, text), second));
  }

  /** @type {(prompt: string, second: number, accept: (prompt: string) => void) => void} */
  #ask(prompt, second, accept) {
    const label = this.#t("timeline.promptAt", { second: formatSecond(second) });
    askForPrompt(this.#track, { prompt, label, accept, cancel: () => this.#focus(this.#placeOf(second)) });
  }

  // Actions of the user ----------------------------------------------------------------------------------------------

  /** @param {number} place */
  #makePart(place) {
    const part = makeBlock(this.#t);
    this.#track.append(part.element);
    part.element.addEventListener("focus", () => (this.#selected = place));
    part.element.addEventListener("pointerdown", () => part.element.focus({ preventScroll: true }));
    part.element.addEventListener("dblclick", () => this.#edit(place));
    const cancel = this.#makeDraggable(part, place);
    /** @param {KeyboardEvent} event */
    const by = (event) => (event.shiftKey ? axis.FREE : axis.SNAP);
    /** @type {Record<string, (event: KeyboardEvent) => void>} */
    const keys = {
      ArrowLeft: (event) => this.#step(place, -1, by(event)),
      ArrowRight: (event) => this.#step(place, 1, by(event)),
      Enter: () => this.#edit(place),
      Delete: () => this.#remove(place),
      Backspace: () => this.#remove(place),
      Escape: cancel,
    };
    part.element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      if (this.#dragged === null || event.key === "Escape") keys[event.key](event);
    });
    return part;
  }

  /** @type {(part: Part, place: number) => () => void} */
  #makeDraggable(part, place) {
    let began = 0;
    return draggable(part.handle, this.#track, {
      start: () => {
        began = this.#blocks[place].second;
        this.#dragged = this.#text;
        part.element.classList.add("sf-timeline-dragged");
      },
      move: (share, event) => {
        const wanted = Math.min(began + share * (this.#view.to - this.#view.from), this.#view.to);
        const by = event.shiftKey ? axis.FREE : axis.SNAP;
        const second = axis.snapped(wanted, by, ...this.#limits(place));
        if (second !== null) this.#dragged = this.#moved(place, second);
        this.draw();
        this.#showTime(this.#blocks[place].second);
      },
      end: (dropped) => {
        const [text, { second }] = [this.#dragged, this.#blocks[place]];
        this.#dragged = null;
        this.#time.remove();
        part.element.classList.remove("sf-timeline-dragged");
        if (dropped && text !== null && second !== began) this.#change(text, second);
        else this.draw();
      },
    });
  }

  #listen() {
    this.#add.addEventListener("click", () => this.#addNext());
    for (const place of [this.#track, this.#before, this.#axis])
      place.addEventListener("dblclick", (event) => {
        if (event.target === place) this.#addAt(axis.snapped(this.#secondUnder(event), axis.SNAP, null, null) ?? 0);
      });
    keepFromCanvas(this.element);
  }

  /** @param {WheelEvent} event */
  #zoom(event) {
    const whole = axis.fit(this.#blocks, this.#end);
    this.#zoomed = axis.zoom(this.#view, this.#secondUnder(event), Math.exp(event.deltaY / 400), whole);
    this.draw();
  }

  /** @param {MouseEvent} event */
  #secondUnder(event) {
    const box = this.#track.getBoundingClientRect();
    return axis.secondAt(this.#view, (event.clientX - box.left) / box.width);
  }
}
