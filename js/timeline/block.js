import { colourOf, shareOf } from "./axis.js";
import { formatSecond } from "./text.js";
import { fill } from "../lib/i18n.js";

const SVG = "http://www.w3.org/2000/svg";
const MARKS = {
  blend: "M2 13 14 3v10z",
  recache: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  cut: "M4 2a2 2 0 1 0 .01 0zM4 10a2 2 0 1 0 .01 0zM5.6 5.4 14 13M5.6 10.6 14 3",
  seed: "M2.5 2.5h11v11h-11zM5.5 5.5h.01M8 8h.01M10.5 10.5h.01",
};

/** An element of a class below .sf-timeline. */
export function element(tag, name, text = "") {
  const made = document.createElement(tag);
  made.className = `sf-timeline-${name}`;
  made.textContent = text;
  return made;
}

/**
 * The element of a row: a slider, since its value is a second that the arrow keys change. What it shows is drawn by
 * `draw`, so that it stays the same element while its row is dragged.
 */
export function makeBlock(said) {
  const block = element("div", "block");
  block.tabIndex = 0;
  block.setAttribute("role", "slider");
  block.setAttribute("aria-orientation", "horizontal");
  block.setAttribute("aria-valuemin", "0");
  const handle = element("div", "handle");
  const marks = element("div", "marks");
  const text = element("div", "text");
  block.append(handle, marks, text);

  function draw(row, view) {
    const left = shareOf(view, row.second);
    const right = shareOf(view, Math.min(row.end, view.to));
    block.style.left = percent(left);
    block.style.width = `calc(${percent(Math.max(0, right - left))} - 1px)`;
    block.style.display = left >= 1 || right <= 0 ? "none" : "";
    // the part of a row that begins to the left of what is seen still shows its words
    block.style.paddingLeft = left < 0 ? `calc(${percent(-left / (right - left))} + 4px)` : "";
    block.style.background = background(row);
    const options = optionsOf(row, said);
    marks.replaceChildren(element("span", "second", `${formatSecond(row.second)} s`), ...options.map(makeMark));
    text.textContent = row.prompt || row.holding;
    text.classList.toggle("sf-timeline-kept", !row.prompt);
    const words = [row.prompt, ...options.map((option) => option.words)].filter(Boolean).join("; ");
    block.title = `${formatSecond(row.second)} s: ${words}\n\n${said.timelineHelp}`;
    block.setAttribute("aria-label", words);
    block.setAttribute("aria-valuenow", formatSecond(row.second));
    block.setAttribute("aria-valuetext", `${formatSecond(row.second)} s`);
  }
  return { element: block, handle, draw };
}

export const percent = (share) => `${Number((100 * share).toFixed(4))}%`;

/** A blend begins in the colour of what was there before. */
function background(row) {
  const colour = colourOf(row.holding);
  return row.blend > 1 ? `linear-gradient(90deg, ${colourOf(row.before)} 8px, ${colour} 48px)` : colour;
}

/** Each option of a row: its name, what is written beside its picture, and what it does. */
function optionsOf(row, said) {
  return [
    row.blend > 1 && { name: "blend", value: row.blend, words: fill(said.timelineBlends, { n: row.blend }) },
    row.recache && { name: "recache", value: "", words: said.timelineRecaches },
    row.cut && { name: "cut", value: "", words: said.timelineCuts },
    row.seed !== null && { name: "seed", value: row.seed, words: fill(said.timelineSeeds, { n: row.seed }) },
  ].filter(Boolean);
}

function makeMark({ name, value }) {
  const mark = element("span", "mark");
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 16 16");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", MARKS[name]);
  picture.append(path);
  mark.append(picture, String(value));
  return mark;
}
