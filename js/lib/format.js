/** Numbers as the interface shows them. */

const UNITS = [
  { size: 2 ** 30, name: "GiB" },
  { size: 2 ** 20, name: "MiB" },
  { size: 2 ** 10, name: "KiB" },
];

/**
 * Formats a number of bytes exactly as the server's messages do, so that one size reads alike everywhere: in the largest
 * unit of which it is at least a tenth.
 *
 * @param {number} bytes
 */
export function formatBytes(bytes) {
  const unit = UNITS.find(({ size }) => bytes >= 0.1 * size);
  return unit ? `${oneDecimal(bytes / unit.size)} ${unit.name}` : `${bytes} bytes`;
}

/**
 * Rounds halves to the even digit, as Python does; toFixed rounds them up: 256 MiB is 0.2 GiB.
 *
 * @param {number} value
 */
function oneDecimal(value) {
  const tenths = Math.round(10 * value);
  const isTie = tenths - 10 * value === 0.5;
  return ((isTie && tenths % 2 ? tenths - 1 : tenths) / 10).toFixed(1);
}

/**
 * Formats a second of a video: with at most six decimals, and no zeros at the end.
 *
 * @param {number} second
 */
export const formatSecond = (second) => String(Number(second.toFixed(6)));
