import { addElement, after, growTo, keepPlace, locale, setWidget, undoable, wheelCanvas, widgetOf } from "../lib/editor.js";
import * as axis from "./axis.js";
import { element, makeBlock, percent } from "./block.js";
import { draggable } from "./drag.js";
import { STYLE } from "./style.js";
import { addRow, formatSecond, moveRow, parse, removeRow, setPrompt } from "./text.js";
import { fill, words } from "../lib/i18n.js";

const HEIGHT = 120; // pixels, with the editor's margin
const NEW_NODE = [480, 300]; // pixels that a new node is wide and high, at least
const APART = 2; // seconds from the last row to a new one behind it

/** Gives a Prompt Timeline its timeline. */
export function addTimeline(node) {
  if (!widgetOf(node, "rows")) return;
  const timeline = new Timeline(node);
  addElement(node, "timeline", timeline.element, HEIGHT);
  growTo(node, NEW_NODE);
  after(widgetOf(node, "rows"), "callback", () => timeline.draw());
  after(node, "onConfigure", () => timeline.draw()); // a workflow was loaded
  after(node, "onRemoved", () => timeline.stop());
  keepPlace(node, "timeline", timeline.element);
}

/**
 * The rows as blocks on an axis of seconds that can be dragged, edited, added and removed. The text in the widget `rows`
 * is the truth: this draws it, and each edit is one change of it that can be undone.
 */
class Timeline {
  element = document.createElement("div");
  #said = words(locale());
  #track = element("div", "track");
  #before = element("div", "before", this.#said.timelineBefore);
  #axis = element("div", "axis");
  #add = element("button", "add", "+");
  #errors = element("div", "errors");
  #time = element("div", "time");
  #node;
  #zoomed = null; // what is seen, if the user chose it
  #view = axis.fit([]); // what is seen
  #blocks = []; // the rows as they are drawn, in the order of time
  #parts = []; // their elements
  #selected = -1; // place in #blocks of the row that had the focus last
  #dragged = null; // the text as it will be if the row is dropped

  constructor(node) {
    this.#node = node;
    const style = document.createElement("style");
    style.textContent = STYLE;
    Object.assign(this.element, { className: "sf-timeline", role: "group", ariaLabel: this.#said.timeline });
    Object.assign(this.#add, { type: "button", title: this.#said.timelineAdd, ariaLabel: this.#said.timelineAdd });
    this.#axis.title = this.#said.timelineAxisHelp;
    this.#errors.role = "status";
    this.#track.append(this.#before);
    this.#axis.append(this.#add);
    this.element.append(style, this.#track, this.#axis, this.#errors);
    this.#listen();
    this.draw();
  }

  get #text() {
    return String(widgetOf(this.#node, "rows").value);
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  draw() {
    const { rows, errors } = parse(this.#dragged ?? this.#text);
    this.#blocks = axis.blocksOf(rows);
    if (this.#dragged === null) this.#view = this.#zoomed ?? axis.fit(rows); // it does not move while one drags
    this.#drawBlocks();
    for (const tick of this.#axis.querySelectorAll(".sf-timeline-tick")) tick.remove();
    this.#axis.prepend(...axis.ticks(this.#view).map((second) => this.#makeTick(second)));
    const wrong = errors.map(({ line, message }) =>
      fill(this.#said.timelineLine, { n: line, what: this.#said[message] }),
    );
    if (!rows.length && !wrong.length) wrong.push(this.#said.timelineEmpty);
    this.#errors.replaceChildren(...wrong.map((text) => element("div", "error", text)));
  }

  #drawBlocks() {
    while (this.#parts.length < this.#blocks.length) this.#parts.push(this.#makePart(this.#parts.length));
    for (const part of this.#parts.splice(this.#blocks.length)) part.element.remove();
    for (const [place, part] of this.#parts.entries()) part.draw(this.#blocks[place], this.#view);
    const free = this.#blocks.length ? axis.shareOf(this.#view, this.#blocks[0].second) : 0;
    this.#before.style.width = percent(Math.min(1, Math.max(0, free)));
    this.#before.style.display = free > 0 ? "" : "none";
  }

  #makeTick(second) {
    const tick = element("div", "tick", formatSecond(second));
    tick.style.left = percent(axis.shareOf(this.#view, second));
    return tick;
  }

  #showTime(second) {
    this.#time.textContent = `${formatSecond(second)} s`;
    this.#time.style.left = `clamp(28px, ${percent(axis.shareOf(this.#view, second))}, 100% - 28px)`;
    this.#track.append(this.#time);
  }

  #focus(place) {
    if (!this.#blocks[place]) return;
    if (this.#zoomed) this.#zoomed = axis.showing(this.#zoomed, this.#blocks[place].second);
    this.draw();
    this.#parts[place].element.focus({ preventScroll: true });
  }

  // Edits -------------------------------------------------------------------------------------------------------------

  /** Makes the text another one, and puts the focus on the row at `second`. */
  #change(text, second) {
    if (text !== this.#text) undoable(() => setWidget(this.#node, "rows", text));
    this.draw();
    this.#focus(this.#placeOf(second));
  }

  #placeOf(second) {
    return this.#blocks.findIndex((block) => block.second === second);
  }

  /** The seconds between which a row can be moved. */
  #limits(place) {
    return [this.#blocks[place - 1]?.second ?? null, this.#blocks[place + 1]?.second ?? null];
  }

  #moved(place, second) {
    return moveRow(this.#text, this.#blocks[place].index, second);
  }

  #step(place, direction, by) {
    const second = axis.stepped(this.#blocks[place].second, direction, by, ...this.#limits(place));
    if (second !== null) this.#change(this.#moved(place, second), second);
  }

  #remove(place) {
    this.#change(removeRow(this.#text, this.#blocks[place].index));
    if (this.#blocks.length) this.#focus(Math.min(place, this.#blocks.length - 1));
    else this.#add.focus({ preventScroll: true });
  }

  /** A new row says what held there before; with nothing before it, the prompt is asked for. */
  #addAt(second) {
    if (this.#placeOf(second) >= 0) return this.#focus(this.#placeOf(second));
    const prompt = this.#blocks.filter((block) => block.second < second).at(-1)?.holding;
    const add = (text) => this.#change(addRow(this.#text, second, text), second);
    return prompt ? add(prompt) : this.#ask("", second, add);
  }

  /** In the middle of the row that had the focus last, or behind the last row. */
  #addNext() {
    const block = this.#blocks[this.#selected] ?? this.#blocks.at(-1);
    if (!block) return this.#addAt(0);
    const middle = block.end < Infinity ? (block.second + block.end) / 2 : block.second + APART;
    const fitting = [axis.SNAP, axis.FREE].map((by) => axis.snapped(middle, by, block.second, block.end));
    const second = fitting.find((each) => each !== null);
    if (second !== undefined) this.#addAt(second);
  }

  #edit(place) {
    const { index, prompt, second } = this.#blocks[place];
    this.#ask(prompt, second, (text) => this.#change(setPrompt(this.#text, index, text), second));
  }

  /** Asks for a prompt in place. Enter and leaving it keep what was typed, Escape does not. */
  #ask(prompt, second, then) {
    const input = element("textarea", "edit");
    input.value = prompt;
    input.ariaLabel = fill(this.#said.timelinePromptAt, { second: formatSecond(second) });
    let open = true;
    const close = (keep) => {
      if (!open) return;
      open = false; // taking it away makes it lose the focus, which comes here again
      input.remove();
      if (keep && input.value.trim()) then(input.value);
      else this.#focus(this.#placeOf(second));
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // Enter picks a word of an input method
      if (event.key === "Escape") close(false);
      if (event.key !== "Enter") return;
      event.preventDefault();
      close(true);
    });
    input.addEventListener("blur", () => close(true));
    this.#track.append(input);
    input.focus({ preventScroll: true });
    input.select();
  }

  // What the user does ------------------------------------------------------------------------------------------------

  #makePart(place) {
    const part = makeBlock(this.#said);
    this.#track.append(part.element);
    part.element.addEventListener("focus", () => (this.#selected = place));
    part.element.addEventListener("pointerdown", () => part.element.focus({ preventScroll: true }));
    part.element.addEventListener("dblclick", () => this.#edit(place));
    const cancel = this.#makeDraggable(part, place);
    const by = (event) => (event.shiftKey ? axis.FREE : axis.SNAP);
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
        if (dropped && second !== began) this.#change(text, second);
        else this.draw();
      },
    });
  }

  #listen() {
    this.#add.addEventListener("click", () => this.#addNext());
    for (const place of [this.#track, this.#before, this.#axis])
      place.addEventListener("dblclick", (event) => {
        if (event.target === place) this.#addAt(axis.snapped(this.#secondUnder(event), axis.SNAP, null, null));
      });
    this.#listenToWheel();
    // keys with Ctrl are the editor's: undo, save, run; the middle button moves the canvas
    for (const type of ["keydown", "keyup"])
      this.element.addEventListener(type, (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    for (const type of ["pointerdown", "pointermove", "pointerup", "mousedown", "click", "dblclick"])
      this.element.addEventListener(
        type,
        (event) => event.button === 1 || event.buttons === 4 || event.stopPropagation(),
      );
  }

  /** With Ctrl it zooms, otherwise the canvas has it. Nodes 2.0 takes it before it comes here, so one must be earlier. */
  #listenToWheel() {
    const zoom = (event) => event.ctrlKey && this.element.contains(event.target) && this.#zoom(event);
    const options = { capture: true, passive: false };
    this.element.addEventListener("pointerenter", () => window.addEventListener("wheel", zoom, options));
    this.element.addEventListener("pointerleave", () => this.stop());
    this.stop = () => window.removeEventListener("wheel", zoom, options);
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      event.stopPropagation();
      wheelCanvas(event);
    });
  }

  #zoom(event) {
    event.preventDefault();
    event.stopPropagation();
    const whole = axis.fit(this.#blocks);
    this.#zoomed = axis.zoom(this.#view, this.#secondUnder(event), Math.exp(event.deltaY / 400), whole);
    this.draw();
  }

  #secondUnder(event) {
    const box = this.#track.getBoundingClientRect();
    return axis.secondAt(this.#view, (event.clientX - box.left) / box.width);
  }
}
