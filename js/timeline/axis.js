/**
 * Where things are on the axis of the timeline widget, in seconds: `view` is {from, to}, what can be seen of it.
 */

export const SNAP = 0.25; // seconds
export const FREE = 0.01; // with Shift
const LEAST = 0.5; // seconds that are seen at the highest zoom
const EMPTY = 4; // seconds that are seen when there is no row later than 0
const MOST_TICKS = 9;
const TICKS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

/** The rows in the order of time with what the widget draws: each lasts to `end`, Infinity for the last. */
export function blocksOf(rows) {
  const blocks = rows.map((row, index) => ({ ...row, index })).sort((one, other) => one.second - other.second);
  let holding = ""; // the prompt that holds: a row without one leaves it as it was
  for (const [place, block] of blocks.entries()) {
    block.before = holding;
    block.holding = holding = block.prompt || holding;
    block.end = blocks[place + 1]?.second ?? Infinity;
  }
  return blocks;
}

/** All rows, and a quarter more. */
export function fit(rows) {
  const last = Math.max(0, ...rows.map((row) => row.second));
  return { from: 0, to: last ? last * 1.25 : EMPTY };
}

/** The view through which `at` seconds is where it was, with `factor` times as much to be seen. */
export function zoom(view, at, factor, whole) {
  const span = Math.min(Math.max((view.to - view.from) * factor, LEAST), 8 * (whole.to - whole.from));
  const from = Math.max(0, at - ((at - view.from) / (view.to - view.from)) * span);
  return { from, to: from + span };
}

/** Moved so that a second can be seen. */
export function showing(view, second) {
  if (second >= view.from && second < view.to) return view;
  const span = view.to - view.from;
  const from = Math.max(0, second - span / 2);
  return { from, to: from + span };
}

/** The share of the axis, 0 to 1, at which a second is, if it can be seen. */
export const shareOf = (view, second) => (second - view.from) / (view.to - view.from);

export const secondAt = (view, share) => view.from + share * (view.to - view.from);

/** The seconds that are written on the axis. */
export function ticks({ from, to }) {
  const step =
    TICKS.find((each) => (to - from) / each <= MOST_TICKS) ?? 3600 * Math.ceil((to - from) / 3600 / MOST_TICKS);
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.floor(to / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, index) => rounded((first + index) * step));
}

/**
 * The multiple of `step` that is nearest to `second`, later than `below` and earlier than `above` (null: nothing there);
 * null if there is none.
 */
export function snapped(second, step, below, above) {
  const [least, most] = limits(step, below, above);
  return least > most ? null : rounded(Math.min(Math.max(Math.round(second / step), least), most) * step);
}

/** The next multiple of `step` to the right (direction 1) or left (-1) within the same limits, or null. */
export function stepped(second, direction, step, below, above) {
  const next = direction > 0 ? after(second, step) : before(second, step);
  const [least, most] = limits(step, below, above);
  return next < least || next > most ? null : rounded(next * step);
}

function limits(step, below, above) {
  return [below === null ? 0 : after(below, step), above === null ? Infinity : before(above, step)];
}

const after = (second, step) => Math.floor(second / step + 1e-6) + 1;
const before = (second, step) => Math.ceil(second / step - 1e-6) - 1;
const rounded = (second) => Number(second.toFixed(6));

/** The same for the same prompt, dark enough for white letters. "" is no prompt. */
export function colourOf(prompt) {
  if (!prompt) return "hsl(0 0% 40%)";
  let hash = 2166136261; // FNV-1a
  for (const letter of prompt.toLowerCase()) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  hash ^= hash >>> 15; // prompts that differ in the last letter only are to differ in colour
  return `hsl(${(Math.imul(hash, 0x2c1b3c6d) >>> 0) % 360} 45% 32%)`;
}
