import { parse } from "../timeline/text.js";

/** Marks on the seek bar: what was changed, and where. */

/**
 * @typedef {"prompt" | "cut" | "reroll"} MarkKind
 * @typedef {{frame: number, kinds: MarkKind[], prompt: string}} Mark
 */

/**
 * Returns the marks of a run, in the order of their frames.
 *
 * @param {string} rows of a Prompt Timeline
 * @param {number} fps
 * @param {number} begin second of the session at which the video begins
 * @returns {Mark[]}
 */
export function marksOf(rows, fps, begin = 0) {
  if (!rows) return [];
  const marks = parse(rows).rows.map(({ second, prompt, cut, seed }) => {
    /** @type {MarkKind[]} */
    const kinds = [];
    if (prompt) kinds.push("prompt");
    if (cut) kinds.push("cut");
    if (seed !== null) kinds.push("reroll");
    return { frame: Math.round((second - begin) * fps), kinds, prompt };
  });
  return marks.filter(({ frame, kinds }) => frame >= 0 && kinds.length).sort((a, b) => a.frame - b.frame);
}

/**
 * Returns the mark that is nearest to a frame, if it is near enough.
 *
 * @param {Mark[]} marks
 * @param {number} frame
 * @param {number} reach in frames
 */
export function nearestMark(marks, frame, reach) {
  const distance = (/** @type {Mark} */ mark) => Math.abs(mark.frame - frame);
  const near = marks.filter((mark) => distance(mark) <= reach);
  return near.sort((a, b) => distance(a) - distance(b)).at(0);
}

/**
 * Returns a mark in words, such as "cut · a blue square".
 *
 * @type {(mark: Mark, t: Translate) => string}
 */
export function describeMark({ kinds, prompt }, t) {
  const words = kinds.flatMap((kind) => {
    if (kind === "cut") return [t("steering.doneCut")];
    return kind === "reroll" ? [t("steering.doneReroll")] : [];
  });
  return [...words, prompt].filter(Boolean).join(" · ");
}

/**
 * Returns the prompts in timelines, each once, in the order of their rows.
 *
 * @param {string[]} timelines rows of Prompt Timelines
 */
export const promptsOf = (timelines) => [
  ...new Set(timelines.flatMap((rows) => (rows ? parse(rows).rows.flatMap(({ prompt }) => prompt || []) : []))),
];

/**
 * Returns every so many chunks a line is drawn, so that the lines do not touch.
 *
 * @param {number} pixels from the beginning of a chunk to that of the next
 */
export function chunksPerLine(pixels) {
  let chunks = 1;
  while (chunks * pixels < NEAREST_LINES && chunks < 2 ** 20) chunks *= 2;
  return chunks;
}

const NEAREST_LINES = 7; // pixels
