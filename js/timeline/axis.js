/** The axis of the timeline widget: positions, zoom and ticks. All in seconds of the video. */

/**
 * @typedef {{from: number, to: number}} View the visible part of the axis
 * @typedef {import("./text.js").Row} Row
 * @typedef {{index: number, end: number, before: string, holding: string}} Extent index: of the row in the text; end:
 *   Infinity for the last row; before, holding: the prompts that hold before the row and from it on
 * @typedef {Row & Extent} Block
 */

export const SNAP = 0.25; // seconds
export const FREE = 0.01; // with Shift
const SHORTEST_VIEW = 0.5; // seconds, at the highest zoom
const EMPTY_VIEW = 4; // seconds, without a row later than 0
const MOST_TICKS = 9;
const TICKS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

/**
 * Returns the blocks that the widget draws, in the order of time: one for each row, which lasts to the next.
 *
 * @param {Row[]} rows
 * @returns {Block[]}
 */
export function blocksOf(rows) {
  const sorted = rows.map((row, index) => ({ ...row, index })).sort((one, other) => one.second - other.second);
  let holding = ""; // the prompt that holds: a row without one leaves it as it was
  return sorted.map((row, place) => {
    const before = holding;
    holding = row.prompt || holding;
    return { ...row, before, holding, end: sorted[place + 1]?.second ?? Infinity };
  });
}

/**
 * Returns a view from 0 to the end of the video if that is known and after all rows, else to a quarter past the last row.
 *
 * @param {{second: number}[]} rows
 * @param {number} [end] of the video; 0: unknown
 * @returns {View}
 */
export function fit(rows, end = 0) {
  const last = Math.max(0, ...rows.map((row) => row.second));
  if (end > last) return { from: 0, to: end };
  return { from: 0, to: last ? last * 1.25 : EMPTY_VIEW };
}

/**
 * Returns a view `factor` times as long in which `at` keeps its place.
 *
 * @param {View} view
 * @param {number} at
 * @param {number} factor
 * @param {View} whole of all rows
 * @returns {View}
 */
export function zoom(view, at, factor, whole) {
  const span = Math.min(Math.max((view.to - view.from) * factor, SHORTEST_VIEW), 8 * (whole.to - whole.from));
  const from = Math.max(0, at - ((at - view.from) / (view.to - view.from)) * span);
  return { from, to: from + span };
}

/**
 * Returns the view, moved if need be so that it shows a second.
 *
 * @param {View} view
 * @param {number} second
 * @returns {View}
 */
export function showing(view, second) {
  if (second >= view.from && second < view.to) return view;
  const span = view.to - view.from;
  const from = Math.max(0, second - span / 2);
  return { from, to: from + span };
}

/**
 * Returns the share of the axis at which a second is; 0 to 1 if it is visible.
 *
 * @param {View} view
 * @param {number} second
 */
export const shareOf = (view, second) => (second - view.from) / (view.to - view.from);

/**
 * @param {View} view
 * @param {number} share of the axis
 */
export const secondAt = (view, share) => view.from + share * (view.to - view.from);

/**
 * Returns the seconds to write on the axis.
 *
 * @param {View} view
 */
export function ticks({ from, to }) {
  const step =
    TICKS.find((each) => (to - from) / each <= MOST_TICKS) ?? 3600 * Math.ceil((to - from) / 3600 / MOST_TICKS);
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.floor(to / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, index) => rounded((first + index) * step));
}

/**
 * Returns the multiple of `step` nearest to `second` between two others, or null if there is none.
 *
 * @param {number} second
 * @param {number} step
 * @param {number | null} below null: no lower limit but 0
 * @param {number | null} above null: no upper limit
 */
export function snapped(second, step, below, above) {
  const [least, most] = limits(step, below, above);
  return least > most ? null : rounded(Math.min(Math.max(Math.round(second / step), least), most) * step);
}

/**
 * Returns the next multiple of `step` between two others, or null if there is none.
 *
 * @param {number} second
 * @param {number} direction 1: to the right, -1: to the left
 * @param {number} step
 * @param {number | null} below
 * @param {number | null} above
 */
export function stepped(second, direction, step, below, above) {
  const next = direction > 0 ? after(second, step) : before(second, step);
  const [least, most] = limits(step, below, above);
  return next < least || next > most ? null : rounded(next * step);
}

/** @type {(step: number, below: number | null, above: number | null) => [number, number]} */
function limits(step, below, above) {
  return [below === null ? 0 : after(below, step), above === null ? Infinity : before(above, step)];
}

/** @type {(second: number, step: number) => number} */
const after = (second, step) => Math.floor(second / step + 1e-6) + 1;
/** @type {(second: number, step: number) => number} */
const before = (second, step) => Math.ceil(second / step - 1e-6) - 1;
/** @param {number} second */
const rounded = (second) => Number(second.toFixed(6));

/**
 * Returns the colour of a prompt, dark enough for white letters; grey for "".
 *
 * @param {string} prompt
 */
export function colourOf(prompt) {
  if (!prompt) return "hsl(0 0% 40%)";
  let hash = 2166136261; // FNV-1a
  for (const letter of prompt.toLowerCase()) hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 16777619);
  hash ^= hash >>> 15; // without it, prompts that differ in the last letter only had like colours
  return `hsl(${(Math.imul(hash, 0x2c1b3c6d) >>> 0) % 360} 45% 32%)`;
}
