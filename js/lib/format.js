/** Numbers and texts as the interface shows them. */

const UNITS = [
  { size: 2 ** 30, name: "GiB", decimals: 1 },
  { size: 2 ** 20, name: "MiB", decimals: 1 },
  { size: 2 ** 10, name: "KiB", decimals: 0 },
];

/**
 * Formats a number of bytes in binary units: "5.6 GiB", "17.0 MiB", "432 KiB", "12 bytes". sf_core/byte_units.py formats
 * them alike, so that a size reads the same in the server's messages.
 *
 * @param {number} bytes
 */
export function formatBytes(bytes) {
  const unit = UNITS.find(({ size }) => bytes >= size);
  return unit ? `${fixed(bytes / unit.size, unit.decimals)} ${unit.name}` : `${bytes} bytes`;
}

/**
 * Formats a number as Python does, which rounds halves to the even digit; toFixed rounds them up.
 *
 * @param {number} value
 * @param {number} decimals
 */
function fixed(value, decimals) {
  const scaled = value * 10 ** decimals;
  const rounded = Math.round(scaled);
  const even = rounded - scaled === 0.5 && rounded % 2 ? rounded - 1 : rounded;
  return (even / 10 ** decimals).toFixed(decimals);
}

/**
 * Formats a second of a video: with at most six decimals, and no zeros at the end.
 *
 * @param {number} second
 */
export const formatSecond = (second) => String(Number(second.toFixed(6)));

/**
 * Returns the first sentence of a text, and the rest.
 *
 * @param {string} text
 * @returns {[string, string]}
 */
export function inTwo(text) {
  const first = /^.*?[.!?](?=\s)/s.exec(text)?.[0] ?? text;
  return [first, text.slice(first.length).trim()];
}

/** @type {Record<string, string>} */
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };

/**
 * Returns what the server escaped for editors, which show it as HTML.
 *
 * @param {string} text
 */
export const unescapeHtml = (text) => text.replace(/&(lt|gt|amp);/g, (entity) => ENTITIES[entity]);
