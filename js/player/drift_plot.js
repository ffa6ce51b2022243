import { make, makeSvg } from "../lib/dom.js";

const [WIDTH, HEIGHT] = [320, 48];

/** @typedef {NonNullable<import("../lib/messages.js").RunState["drift"]>} Drift */

/**
 * Draws the drift of a run, chunk by chunk, and the threshold as a dashed line.
 *
 * @param {Drift} drift
 * @param {Translate} t
 */
export function driftPlot({ points, threshold }, t) {
  const highest = Math.max(1.1 * threshold, ...points.map(([, value]) => value), Number.MIN_VALUE);
  const [first, last] = [points[0]?.[0] ?? 0, points.at(-1)?.[0] ?? 0];
  /** @type {(chunk: number) => number} */
  const across = (chunk) => (last > first ? ((chunk - first) / (last - first)) * WIDTH : WIDTH);
  /** @type {(value: number) => number} */
  const up = (value) => HEIGHT - 2 - (value / highest) * (HEIGHT - 4);
  const pen = { fill: "none", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" };
  const corners = points.map(([chunk, value]) => `${across(chunk).toFixed(1)},${up(value).toFixed(1)}`).join(" ");
  const line = makeSvg("polyline", { points: corners, ...pen, stroke: "currentColor" });
  const limit = { x1: 0, x2: WIDTH, y1: up(threshold), y2: up(threshold), ...pen, "stroke-dasharray": "4 4", class: "sf-limit" };
  const looks = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": t("player.driftPlot") };
  const plot = makeSvg("svg", looks, makeSvg("line", limit), line);
  return make("div", { className: "sf-drift", title: t("player.driftPlot") }, plot);
}
