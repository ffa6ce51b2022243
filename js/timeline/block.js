import { make, makeSvg } from "../lib/dom.js";
import { formatSecond } from "../lib/format.js";
import { colourOf, shareOf } from "./axis.js";

/** The block of a row on the timeline. */

/**
 * @typedef {import("./axis.js").Block} Block
 * @typedef {import("./axis.js").View} View
 * @typedef {{icon: string, value: string, text: string}} Option icon: a path of 16 x 16; value: written beside it
 */

const ICONS = {
  blend: "M2 13 14 3v10z",
  recache: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  cut: "M4 2a2 2 0 1 0 .01 0zM4 10a2 2 0 1 0 .01 0zM5.6 5.4 14 13M5.6 10.6 14 3",
  seed: "M2.5 2.5h11v11h-11zM5.5 5.5h.01M8 8h.01M10.5 10.5h.01",
};

/**
 * Makes the block of a row: a slider, since the arrow keys change its second. `draw` shows a row on it, so that it stays
 * the same element while its row is dragged.
 *
 * @param {Translate} t
 */
export function makeBlock(t) {
  const handle = make("div", { className: "sf-timeline-handle" });
  const marks = make("div", { className: "sf-timeline-marks" });
  const text = make("div", { className: "sf-timeline-text" });
  const slider = { role: "slider", tabIndex: 0, "aria-orientation": "horizontal", "aria-valuemin": "0" };
  const element = make("div", { className: "sf-timeline-block", ...slider }, handle, marks, text);

  /** @type {(row: Block, view: View) => void} */
  function draw(row, view) {
    placeOn(element, row, view);
    element.style.background = background(row);
    const [second, options] = [`${formatSecond(row.second)} s`, optionsOf(row, t)];
    marks.replaceChildren(make("span", { className: "sf-timeline-second" }, second), ...options.map(makeMark));
    text.textContent = row.prompt || row.holding;
    text.classList.toggle("sf-timeline-kept", !row.prompt);
    const description = [row.prompt, ...options.map((option) => option.text)].filter(Boolean).join("; ");
    element.title = `${second}: ${description}\n\n${t("timeline.help")}`;
    element.setAttribute("aria-label", description);
    element.setAttribute("aria-valuenow", formatSecond(row.second));
    element.setAttribute("aria-valuetext", second);
  }
  return { element, handle, draw };
}

/** @type {(element: HTMLElement, row: Block, view: View) => void} */
function placeOn({ style }, row, view) {
  const left = shareOf(view, row.second);
  const right = shareOf(view, Math.min(row.end, view.to));
  style.left = percent(left);
  style.width = `calc(${percent(Math.max(0, right - left))} - 1px)`;
  style.display = left >= 1 || right <= 0 ? "none" : "";
  // a block that begins to the left of the view still shows its text
  style.paddingLeft = left < 0 ? `calc(${percent(-left / (right - left))} + 4px)` : "";
}

/**
 * Formats a share of the axis for CSS.
 *
 * @param {number} share
 */
export const percent = (share) => `${Number((100 * share).toFixed(4))}%`;

/**
 * Returns the CSS of a block's colours. A blend begins in the colour of the prompt before.
 *
 * @param {Block} row
 */
function background(row) {
  const colour = colourOf(row.holding);
  return row.blend > 1 ? `linear-gradient(90deg, ${colourOf(row.before)} 8px, ${colour} 48px)` : colour;
}

/** @type {(row: Block, t: Translate) => Option[]} */
function optionsOf({ blend, recache, cut, seed }, t) {
  const options = [];
  if (blend > 1) options.push({ icon: ICONS.blend, value: String(blend), text: t("timeline.blends", { n: blend }) });
  const again = recache === "joint" ? "timeline.joins" : "timeline.recaches";
  if (recache) options.push({ icon: ICONS.recache, value: "", text: t(again) });
  if (cut) options.push({ icon: ICONS.cut, value: "", text: t("timeline.cuts") });
  if (seed !== null) options.push({ icon: ICONS.seed, value: String(seed), text: t("timeline.seeds", { n: seed }) });
  return options;
}

/** @param {Option} option */
function makeMark({ icon, value }) {
  const picture = makeSvg("svg", { viewBox: "0 0 16 16", "aria-hidden": true }, makeSvg("path", { d: icon }));
  return make("span", { className: "sf-timeline-mark" }, picture, value);
}
