import { makeSvg } from "../lib/dom.js";

/** Drawings of 16 x 16: filled shapes, and lines. */

/** @type {Record<string, {fill?: string, line?: string}>} */
const ICONS = {
  play: { fill: "M4.5 2.9c0-.8.9-1.3 1.6-.9l7.2 4.9c.8.5.8 1.7 0 2.2l-7.2 4.9c-.7.4-1.6-.1-1.6-.9z" },
  pause: { fill: "M4 3a1 1 0 0 1 1-1h1a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1zM9 3a1 1 0 0 1 1-1h1a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1h-1a1 1 0 0 1-1-1z" },
  back: { fill: "M10.5 3.4v9.2c0 .6-.7 1-1.2.6L4 9v3.2H2.5V3.8H4V7l5.3-4.2c.5-.4 1.2 0 1.2.6z" },
  forth: { fill: "M5.5 3.4v9.2c0 .6.7 1 1.2.6L12 9v3.2h1.5V3.8H12V7L6.7 2.8c-.5-.4-1.2 0-1.2.6z" },
  stop: { fill: "M3 4.5C3 3.7 3.7 3 4.5 3h7c.8 0 1.5.7 1.5 1.5v7c0 .8-.7 1.5-1.5 1.5h-7C3.7 13 3 12.3 3 11.5z" },
  cut: { line: "M4.2 2.6a1.9 1.9 0 1 0 0 3.8 1.9 1.9 0 0 0 0-3.8zM4.2 9.6a1.9 1.9 0 1 0 0 3.8 1.9 1.9 0 0 0 0-3.8zM5.7 10.4 14 3.5M5.7 5.6 14 12.5" },
  reroll: {
    line: "M4 2.5h8A1.5 1.5 0 0 1 13.5 4v8a1.5 1.5 0 0 1-1.5 1.5H4A1.5 1.5 0 0 1 2.5 12V4A1.5 1.5 0 0 1 4 2.5z",
    fill: "M5.5 4.5a1 1 0 1 0 0 2 1 1 0 0 0 0-2zM10.5 4.5a1 1 0 1 0 0 2 1 1 0 0 0 0-2zM8 7a1 1 0 1 0 0 2 1 1 0 0 0 0-2zM5.5 9.5a1 1 0 1 0 0 2 1 1 0 0 0 0-2zM10.5 9.5a1 1 0 1 0 0 2 1 1 0 0 0 0-2z",
  },
  hold: { line: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM6.3 5.5v5M9.7 5.5v5" },
  resume: { line: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8z", fill: "M6.5 5.2v5.6L11 8z" },
  full: { line: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10" },
  small: { line: "M6 2.5V6H2.5M13.5 6H10V2.5M10 13.5V10h3.5M2.5 10H6v3.5" },
  more: { fill: "M8 2a1.4 1.4 0 1 0 0 2.8A1.4 1.4 0 0 0 8 2zM8 6.6a1.4 1.4 0 1 0 0 2.8 1.4 1.4 0 0 0 0-2.8zM8 11.2a1.4 1.4 0 1 0 0 2.8 1.4 1.4 0 0 0 0-2.8z" },
  prompts: { line: "M2.5 8a5.5 5.5 0 1 0 1.7-4M2.5 2.5v2.8h2.8M8 5v3.3l2.3 1.4" },
  info: { line: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM8 7.3v3.7", fill: "M8 4.3a.9.9 0 1 0 0 1.8.9.9 0 0 0 0-1.8z" },
  keys: { line: "M2.5 4h11A1 1 0 0 1 14.5 5v6a1 1 0 0 1-1 1h-11a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM4.5 7h.01M8 7h.01M11.5 7h.01M5 9.5h6" },
  check: { line: "M3 8.5 6.5 12 13 4.5" },
};

/** @typedef {keyof typeof ICONS} Icon */

/** @param {Icon} name */
export function icon(name) {
  const { fill, line } = ICONS[name];
  const shapes = [];
  const pen = { fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-linecap": "round", "stroke-linejoin": "round" };
  if (line) shapes.push(makeSvg("path", { d: line, ...pen }));
  if (fill) shapes.push(makeSvg("path", { d: fill, fill: "currentColor" }));
  return makeSvg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": true }, ...shapes);
}
