/**
 * The rows of Prompt Timeline as text, which sf_core/session/timeline.py reads too:
 *
 *     row    = second [option ...] ":" [prompt]
 *     option = "blend" chunks | "recache" | "cut" | "seed" number
 *
 * An edit changes what must change and leaves every other character of the text as it is: comments, empty lines, the
 * order and the spelling of rows.
 */

export const MAX_BLEND = 1000; // chunks
export const MAX_SEED = 2n ** 64n - 1n;

const LINE_END = /(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])/; // what Python's splitlines() splits at
const SECOND = /^(\d+\.?\d*|\.\d+)$/;
const WHOLE = /^\d+$/;
const OPTIONS = ["blend", "recache", "cut", "seed"]; // in the order in which they are written

/**
 * @returns {{rows: Row[], errors: {line: number, message: string}[]}} the rows in the order of the text, and the lines
 *   that are none. Lines count from 1; a message is a key of words.js. The rows' places in the list are the `index` of
 *   the edits below.
 * @typedef {{second: number, prompt: string, blend: number, recache: boolean, cut: boolean, seed: bigint | null,
 *   line: number}} Row blend: chunks in which the video turns to the prompt, 1: at once
 */
export function parse(text) {
  const rows = [];
  const errors = [];
  const taken = new Set();
  for (const [index, line] of lines(text).entries()) {
    if (!line.trim() || line.trimStart().startsWith("#")) continue;
    const row = parseRow(line);
    const message = typeof row === "string" ? row : taken.has(row.second) ? "timelineTwice" : null;
    if (message) {
      errors.push({ line: index + 1, message });
    } else {
      taken.add(row.second);
      rows.push({ ...row, line: index + 1 });
    }
  }
  return { rows, errors };
}

/** A row, or the key of what is wrong with it. */
function parseRow(line) {
  const { head, prompt, colon } = parts(line);
  const [second, ...words] = head.trim().split(/\s+/);
  if (!colon) return "timelineColon";
  if (!SECOND.test(second)) return "timelineSecond";
  const row = { second: Number(second), prompt, blend: 1, recache: false, cut: false, seed: null };
  while (words.length) {
    const option = words.shift().toLowerCase();
    if (option === "recache" || option === "cut") {
      row[option] = true;
    } else if (option === "blend") {
      row.blend = Number(wholeUpTo(MAX_BLEND, words.shift()));
      if (!row.blend) return "timelineBlend";
    } else if (option === "seed") {
      row.seed = wholeUpTo(MAX_SEED, words.shift());
      if (row.seed === null) return "timelineSeed";
    } else {
      return "timelineOption";
    }
  }
  return prompt || row.cut || row.seed !== null ? row : "timelinePrompt";
}

function wholeUpTo(most, word) {
  const number = WHOLE.test(word ?? "") ? BigInt(word) : null;
  return number !== null && number <= most ? number : null;
}

/** The text of one row. */
export function formatRow({ second, prompt = "", ...options }) {
  const head = [formatSecond(second), ...OPTIONS.map((name) => formatOption(name, options[name]))].filter(Boolean);
  return `${head.join(" ")}: ${prompt}`.trimEnd();
}

/** The text of rows, one a line. */
export const formatRows = (rows) => rows.map(formatRow).join("\n");

/** With at most six decimals and no zeros at the end. */
export const formatSecond = (second) => String(Number(second.toFixed(6)));

/** "" for an option that says nothing. */
function formatOption(name, value) {
  if (name === "recache" || name === "cut") return value ? name : "";
  return value === null || value === undefined || (name === "blend" && value <= 1) ? "" : `${name} ${value}`;
}

export function moveRow(text, index, second) {
  return editRow(text, index, (row) => ({ ...row, head: row.head.replace(/\S+/, formatSecond(second)) }));
}

export function setPrompt(text, index, prompt) {
  const said = prompt.split(LINE_END).filter(isLine).join(" ").trim();
  return editRow(text, index, (row) => ({ ...row, space: said ? row.space || " " : "", prompt: said }));
}

/** value: chunks for blend, a seed as bigint, true for cut and recache; null or false takes the option away. */
export function setOption(text, index, option, value) {
  const written = formatOption(option, value);
  return editRow(text, index, (row) => {
    const there = new RegExp(
      `\\s+${option}${option === "blend" || option === "seed" ? "\\s+\\d+" : ""}(?=\\s|$)`,
      "gi",
    );
    const bare = row.head.trimEnd();
    const last = bare.match(there)?.length ?? 0;
    let count = 0; // of an option that is there twice, the last one counts and stays
    const head = bare.replace(there, () => (++count === last && written ? ` ${written}` : ""));
    return { ...row, head: (last || !written ? head : `${bare} ${written}`) + row.head.slice(bare.length) };
  });
}

/** With a new row on a line of its own: after the row that comes before it in time, or before the one that comes after. */
export function addRow(text, second, prompt) {
  const line = formatRow({ second, prompt });
  const { rows } = parse(text);
  const before = rows.filter((row) => row.second <= second).reduce(later, null);
  const behind = rows.filter((row) => row.second > second).reduce(earlier, null);
  const pieces = text.split(LINE_END); // lines and, between them, their ends
  const end = pieces[1] ?? "\n";
  if (before) pieces.splice(2 * before.line - 1, 0, end, line);
  else if (behind) pieces.splice(2 * behind.line - 2, 0, line, end);
  else if (pieces.at(-1).trim()) pieces.push(end, line);
  else pieces[pieces.length - 1] = line;
  return pieces.join("");
}

const later = (one, other) => (one && one.second > other.second ? one : other);
const earlier = (one, other) => (one && one.second < other.second ? one : other);

export function removeRow(text, index) {
  const pieces = text.split(LINE_END);
  const at = 2 * (parse(text).rows[index].line - 1);
  if (at + 1 < pieces.length) pieces.splice(at, 2);
  else pieces.splice(Math.max(0, at - 1), 2); // the last line goes with the end of the one before it
  return pieces.join("");
}

const isLine = (_, index) => index % 2 === 0; // of what split(LINE_END) gives
const lines = (text) => text.split(LINE_END).filter(isLine);

/** What a line is made of; joined, they are the line. */
function parts(line) {
  const [, head, colon, space, prompt, rest] = line.match(/^([^:]*)(:?)(\s*)(.*?)(\s*)$/s);
  return { head, colon, space, prompt, rest };
}

function editRow(text, index, change) {
  const pieces = text.split(LINE_END);
  const at = 2 * (parse(text).rows[index].line - 1);
  const { head, colon, space, prompt, rest } = change(parts(pieces[at]));
  pieces[at] = head + colon + space + prompt + rest;
  return pieces.join("");
}
