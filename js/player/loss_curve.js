import { make } from "./controls.js";
import { fill } from "../lib/i18n.js";

/** What a training tells of itself, in words and as a plot. docs/live.md says what `training` in a state is. */

const [WIDTH, HEIGHT] = [300, 60]; // of the plot's own coordinates
const COLOURS = { generator: "#4a90d9", critic: "#d9904a" };

/** The lines over the picture, as runs.js has them for videos. */
export function trainingBadge({ training, state }, said) {
  const ended = { interrupted: said.interrupted, failed: said.failed }[state] ?? "";
  if (!training) return { facts: "", status: state === "running" ? said.trainingBegins : ended, note: "" };
  const { stage, step, of, left, file } = training;
  const facts = [fill(said[`stage_${stage}`] ?? stage, { n: step, m: of })];
  if (state === "running" && left > 0) facts.push(fill(said.timeLeft, { time: timeInWords(left, said) }));
  const kept = file ? fill(state === "ended" ? said.trained : said.trainedSoFar, { file }) : "";
  return { facts: facts.join(" · "), status: [ended, kept].filter(Boolean).join(": "), note: "" };
}

function timeInWords(seconds, said) {
  if (seconds < 90) return fill(said.seconds, { n: Math.ceil(seconds) });
  if (seconds < 5400) return fill(said.minutes, { n: Math.round(seconds / 60) });
  return fill(said.hours, { n: (seconds / 3600).toFixed(1) });
}

/** The losses over the whole training: a line each, each to a scale of its own. */
export class LossCurve {
  #said;
  #plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  #legend = make("div", { className: "sf-legend" });

  constructor(said) {
    this.#said = said;
    this.#plot.setAttribute("aria-label", said.lossPlot);
    this.element = make("div", { className: "sf-losses", title: said.lossPlotTitle, hidden: true });
    this.element.append(this.#plot, this.#legend);
  }

  show(training) {
    const losses = Object.entries(training?.losses ?? {}).filter(([, points]) => points.length);
    this.element.hidden = !losses.length;
    this.#plot.replaceChildren(...losses.map(([whose, points]) => lineOf(whose, points)));
    this.#legend.replaceChildren(...losses.map(([whose, points]) => this.#entry(whose, points)));
  }

  #entry(whose, points) {
    const text = fill(this.#said[`loss_${whose}`] ?? whose, { n: points.at(-1)[1].toPrecision(3) });
    const entry = make("span", { textContent: text });
    entry.style.color = COLOURS[whose];
    return entry;
  }
}

/** points: [[how far the training was, 0 to 1; loss]]. One alone is drawn as a short line. */
function lineOf(whose, points) {
  const highest = Math.max(...points.map(([, loss]) => loss), Number.MIN_VALUE);
  const places = points.map(([far, loss]) => `${(far * WIDTH).toFixed(1)},${(HEIGHT - 2 - (loss / highest) * (HEIGHT - 4)).toFixed(1)}`);
  const all = places.length > 1 ? places : [places[0], places[0].replace(/^[^,]+/, (x) => Number(x) + 2)];
  const looks = { fill: "none", stroke: COLOURS[whose], "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" };
  return svg("polyline", { points: all.join(" "), ...looks });
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
