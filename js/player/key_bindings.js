/**
 * Keys that steer a run, as text with one key a line:
 *
 *     line = key "=" ("cut" | prompt)
 *     key  = "ArrowLeft" | "ArrowRight" | "ArrowUp" | "ArrowDown" | a letter | a digit
 *
 * Empty lines, and lines that begin with #, are ignored.
 */

/**
 * @typedef {{action: "prompt" | "cut", prompt?: string}} KeyAction
 * @typedef {{line: number, message: TextKey, what: string}} KeyError
 * @typedef {{actions: Map<string, KeyAction>, errors: KeyError[]}} Keys actions by the name of their key, as of a
 *   KeyboardEvent, letters in lower case
 */

const LONGEST_PROMPT = 2000; // letters
const SYMBOLS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const CUT = "cut";

/** Other spellings of a key, in lower case. @type {Map<string, string>} */
const SPELLINGS = new Map(
  Object.entries(SYMBOLS).flatMap(([name, symbol]) => [name, name.slice("Arrow".length), symbol].map((one) => [one.toLowerCase(), name])),
);

/**
 * Reads bindings. A line that is wrong binds nothing; all others hold.
 *
 * @param {string} text
 * @returns {Keys}
 */
export function parseKeys(text) {
  /** @type {Keys} */
  const keys = { actions: new Map(), errors: [] };
  for (const [index, line] of text.split(/\r\n|[\n\r]/).entries()) {
    if (!line.trim() || line.trimStart().startsWith("#")) continue;
    const wrong = bind(line, keys.actions);
    if (wrong) keys.errors.push({ line: index + 1, ...wrong });
  }
  return keys;
}

/** @type {(line: string, actions: Map<string, KeyAction>) => {message: TextKey, what: string} | null} */
function bind(line, actions) {
  const [left, right] = halves(line);
  const key = keyOf(left);
  if (right === null) return { message: "keys.noEquals", what: line.trim() };
  if (key === null) return { message: "keys.noKey", what: left };
  if (actions.has(key)) return { message: "keys.twice", what: symbolOf(key) };
  if (!right) return { message: "keys.noPrompt", what: symbolOf(key) };
  if (right.length > LONGEST_PROMPT) return { message: "keys.tooLong", what: symbolOf(key) };
  actions.set(key, right.toLowerCase() === CUT ? { action: "cut" } : { action: "prompt", prompt: right });
  return null;
}

/** The parts before and after the first "=", full-width or not. @type {(line: string) => [string, string | null]} */
function halves(line) {
  const at = line.search(/[=＝]/);
  return at < 0 ? [line.trim(), null] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}

/** @param {string} text */
function keyOf(text) {
  const name = text.toLowerCase();
  return SPELLINGS.get(name) ?? (/^[a-z0-9]$/.test(name) ? name : null);
}

/**
 * Returns how a key is written in a sentence.
 *
 * @param {string} key
 */
export const symbolOf = (key) => /** @type {Record<string, string>} */ (SYMBOLS)[key] ?? key.toUpperCase();

/** @type {(keys: Iterable<string>) => string} */
export const symbolsOf = (keys) => [...keys].map(symbolOf).join(" ");
