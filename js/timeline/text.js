import { formatSecond } from "../lib/format.js";

/**
 * The rows of Prompt Timeline as text, which sf_core/session/timeline.py reads too:
 *
 *     row    = time [option ...] ":" [prompt]
 *     time   = seconds | m:ss | h:mm:ss
 *     option = "blend" chunks | "recache" | "joint" | "cut" | "seed" number
 *
 * An edit changes its row and leaves every other character of the text as it is: comments, empty lines, order, spelling.
 */

/**
 * @typedef {object} Row
 * @property {number} second
 * @property {string} prompt "": the one before stays
 * @property {number} blend chunks in which the prompt before blends into this one; 1: at once
 * @property {boolean | "joint"} recache "joint": in one pass over the window
 * @property {boolean} cut
 * @property {bigint | null} seed
 * @property {number} line counted from 1
 *
 * @typedef {{line: number, message: TextKey}} LineError
 * @typedef {{head: string, colon: string, space: string, prompt: string, rest: string}} Parts of a line; joined, they are
 *   the line
 */

const MAX_BLEND = 1000n; // chunks
const MAX_SEED = 2n ** 64n - 1n;

// eslint-disable-next-line no-control-regex -- as Python's splitlines()
const LINE_END = /(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])/;
// with full-width colons and digits too, as everywhere here
const CLOCK = /^[\d０-９]+(?:[:：][0-5０-５][\d０-９]){1,2}(?:\.[\d０-９]+)?$/;
const CLOCK_ROW =
  /^(\s*[\d０-９]+(?:[:：][0-5０-５][\d０-９]){1,2}(?:\.[\d０-９]+)?(?=[\s:：])[^:：]*)([:：])(\s*)(.*?)(\s*)$/s;
const CLOCK_WITHOUT_COLON =
  /^(\s*[\d０-９]+(?:[:：][0-5０-５][\d０-９]){1,2}(?:\.[\d０-９]+)?)()(\s+)([^:：]*?)(\s*)$/s;
const LIKE_A_CLOCK = /^[\d０-９]+(?:[:：][\d０-９]+)+(?:,[\d０-９]+|(?=[:：]))/;
const OPTIONS = /^(?:(?:cut|recache|joint|(?:blend|seed)\s+[\d０-９]+)(?:\s+|$))+$/i;
const SECONDS_ROW = /^([^:：]*)([:：]?)(\s*)(.*?)(\s*)$/s;
const SECOND = /^([\d０-９]+\.?[\d０-９]*|\.[\d０-９]+)$/;
const WHOLE = /^[\d０-９]+$/;

/**
 * Reads the rows, in the order of the text. Their places in the list are the `index` of the edits below.
 *
 * @param {string} text
 */
export function parse(text) {
  /** @type {Row[]} */
  const rows = [];
  /** @type {LineError[]} */
  const errors = [];
  const taken = new Set();
  for (const [index, line] of text.split(LINE_END).filter(isLine).entries()) {
    if (!line.trim() || line.trimStart().startsWith("#")) continue;
    const row = parseRow(line, index + 1);
    if (typeof row === "string") {
      errors.push({ line: index + 1, message: row });
    } else if (taken.has(row.second)) {
      errors.push({ line: index + 1, message: "timeline.sameSecond" });
    } else {
      taken.add(row.second);
      rows.push(row);
    }
  }
  return { rows, errors };
}

/**
 * Returns a row, or the key of the text that says what is wrong with it.
 *
 * @param {string} text of a line
 * @param {number} line
 * @returns {Row | TextKey}
 */
function parseRow(text, line) {
  const { head, prompt, colon } = split(text);
  const [second, ...words] = head.trim().split(/\s+/);
  const time = text.trimStart().match(LIKE_A_CLOCK)?.[0];
  if (time && !CLOCK.test(time)) return "timeline.noSecond";
  if (!colon) return "timeline.noColon";
  if (!SECOND.test(second) && !CLOCK.test(second)) return "timeline.noSecond";
  /** @type {Row} */
  const row = { second: inSeconds(second), prompt, blend: 1, recache: false, cut: false, seed: null, line };
  while (words.length) {
    const option = words.shift()?.toLowerCase();
    if (option === "cut") {
      row.cut = true;
    } else if (option === "recache" || option === "joint") {
      row.recache = option === "joint" ? option : true;
    } else if (option === "blend") {
      row.blend = Number(parseWhole(words.shift(), MAX_BLEND));
      if (!row.blend) return "timeline.badBlend";
    } else if (option === "seed") {
      row.seed = parseWhole(words.shift(), MAX_SEED);
      if (row.seed === null) return "timeline.badSeed";
    } else {
      return "timeline.unknownOption";
    }
  }
  return prompt || row.cut || row.seed !== null ? row : "timeline.noPrompt";
}

/** @type {(time: string) => number} */
const inSeconds = (time) => time.normalize("NFKC").split(":").reduce((sum, part) => 60 * sum + Number(part), 0);

/** @type {(word: string | undefined, most: bigint) => bigint | null} */
function parseWhole(word = "", most) {
  const number = WHOLE.test(word) ? BigInt(word.normalize("NFKC")) : null;
  return number !== null && number <= most ? number : null;
}

/** @type {(text: string, index: number, second: number) => string} */
export function moveRow(text, index, second) {
  return editRow(text, index, (row) => ({ ...row, head: row.head.replace(/\S+/, formatSecond(second)) }));
}

/** @type {(text: string, index: number, prompt: string) => string} */
export function setPrompt(text, index, prompt) {
  const oneLine = prompt.split(LINE_END).filter(isLine).join(" ").trim();
  return editRow(text, index, (row) => ({ ...row, space: oneLine ? row.space || " " : "", prompt: oneLine }));
}

/**
 * Adds a row on a line of its own: after the row that comes before it in time, or before the one that comes after.
 *
 * @param {string} text
 * @param {number} second
 * @param {string} prompt
 */
export function addRow(text, second, prompt) {
  const line = `${formatSecond(second)}: ${prompt}`.trimEnd();
  const rows = parse(text).rows.sort((one, other) => one.second - other.second);
  const before = rows.findLast((row) => row.second <= second);
  const behind = rows.find((row) => row.second > second);
  const pieces = text.split(LINE_END); // lines and, between them, their ends
  const end = pieces[1] ?? "\n";
  if (before) pieces.splice(2 * before.line - 1, 0, end, line);
  else if (behind) pieces.splice(2 * behind.line - 2, 0, line, end);
  else if (pieces[pieces.length - 1].trim()) pieces.push(end, line);
  else pieces[pieces.length - 1] = line;
  return pieces.join("");
}

/** @type {(text: string, index: number) => string} */
export function removeRow(text, index) {
  const pieces = text.split(LINE_END);
  const at = 2 * (parse(text).rows[index].line - 1);
  if (at + 1 < pieces.length) pieces.splice(at, 2);
  else pieces.splice(Math.max(0, at - 1), 2); // the last line goes with the end of the one before it
  return pieces.join("");
}

/**
 * Tells lines from their ends in a text split at LINE_END.
 *
 * @type {(piece: string, index: number) => boolean}
 */
const isLine = (_, index) => index % 2 === 0;

/**
 * @param {string} line
 * @returns {Parts}
 */
function split(line) {
  const without = line.match(CLOCK_WITHOUT_COLON); // '1:30 a cat' says what is meant; an edit adds the colon
  const [, head, colon, space, prompt, rest] = line.match(CLOCK_ROW) ?? without ?? line.match(SECONDS_ROW) ?? [];
  return { head, colon: without && !OPTIONS.test(prompt) ? ":" : colon, space, prompt, rest };
}

/** @type {(text: string, index: number, change: (parts: Parts) => Parts) => string} */
function editRow(text, index, change) {
  const pieces = text.split(LINE_END);
  const at = 2 * (parse(text).rows[index].line - 1);
  const { head, colon, space, prompt, rest } = change(split(pieces[at]));
  pieces[at] = head + colon + space + prompt + rest;
  return pieces.join("");
}
