import { make, makeSvg } from "../lib/dom.js";

/** The view of a training: what is said of it, and the plot of its losses. docs/live.md describes `training` of a state. */

/** @typedef {import("../lib/messages.js").Training} Training */

const [WIDTH, HEIGHT] = [300, 60]; // of the plot's own coordinates

/** @type {Record<string, TextKey>} */
const STAGE_TEXTS = { causal: "training.stageCausal", "self-forcing": "training.stageSelfForcing" };

/** @type {Record<string, {colour: string, text: TextKey}>} */
const NETWORKS = {
  generator: { colour: "#4a90d9", text: "training.lossGenerator" },
  critic: { colour: "#d9904a", text: "training.lossCritic" },
};
const OTHER_COLOUR = "#999"; // of a network that only another version's server has

/** @typedef {Pick<import("../lib/messages.js").RunState, "training" | "state">} TrainingRun */

/**
 * Returns the line about a training.
 *
 * @param {TrainingRun} run
 * @param {Translate} t
 * @returns {import("./status.js").Status}
 */
export function trainingStatus({ training, state }, t) {
  const facts = [];
  if (training) {
    const { stage, step, of, left } = training;
    const stageText = STAGE_TEXTS[stage];
    facts.push(stageText ? t(stageText, { n: step, m: of }) : stage);
    if (state === "running" && left > 0) facts.push(t("training.timeLeft", { time: duration(left, t) }));
  }
  if (state === "interrupted") return { tone: "failed", state: t("player.interrupted"), facts };
  if (state === "failed") return { tone: "failed", state: t("player.failed"), facts };
  if (state === "ended") return { tone: "ended", state: t("player.finished"), facts };
  return { tone: training ? "live" : "held", state: t(training ? "training.running" : "training.starting"), facts };
}

/**
 * Returns the sentence about a training's result; "" before there is one.
 *
 * @param {TrainingRun} run
 * @param {Translate} t
 */
export function trainingMessage({ training, state }, t) {
  if (!training?.file) return "";
  return t(state === "ended" ? "training.finished" : "training.unfinished", { file: training.file });
}

/** @type {(seconds: number, t: Translate) => string} */
function duration(seconds, t) {
  if (seconds < 90) return t("training.seconds", { n: Math.ceil(seconds) });
  if (seconds < 5400) return t("training.minutes", { n: Math.round(seconds / 60) });
  return t("training.hours", { n: (seconds / 3600).toFixed(1) });
}

/** The losses over the whole training: a line for each network, each on its own scale. */
export class LossCurve {
  #t;
  #plot;
  #legend = make("div", { className: "sf-legend" });

  /** @param {Translate} t */
  constructor(t) {
    this.#t = t;
    const looks = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" };
    this.#plot = makeSvg("svg", { ...looks, "aria-label": t("training.lossPlot") });
    const properties = { className: "sf-losses", title: t("training.lossPlotTooltip"), hidden: true };
    this.element = make("div", properties, this.#plot, this.#legend);
  }

  /** @param {Training | null} training */
  show(training) {
    const losses = Object.entries(training?.losses ?? {}).filter(([, points]) => points.length);
    this.element.hidden = !losses.length;
    this.#plot.replaceChildren(...losses.map(([network, points]) => lineOf(network, points)));
    this.#legend.replaceChildren(...losses.map(([network, points]) => this.#entry(network, points)));
  }

  /** @type {(network: string, points: [number, number][]) => HTMLElement} */
  #entry(network, points) {
    const loss = points[points.length - 1][1].toPrecision(3);
    const known = NETWORKS[network];
    const dot = make("i");
    dot.style.background = colourOf(network);
    return make("span", {}, dot, known ? this.#t(known.text, { n: loss }) : `${network} ${loss}`);
  }
}

/**
 * Makes the line of a network. A single point is drawn as a short line.
 *
 * @type {(network: string, points: [number, number][]) => SVGElement}
 */
function lineOf(network, points) {
  const highest = Math.max(...points.map(([, loss]) => loss), Number.MIN_VALUE);
  const places = points.map(([progress, loss]) => [progress * WIDTH, HEIGHT - 2 - (loss / highest) * (HEIGHT - 4)]);
  const [x, y] = places[0];
  if (places.length === 1) places.push([x + 2, y]);
  const corners = places.map((place) => place.map((one) => one.toFixed(1)).join(",")).join(" ");
  const looks = { fill: "none", stroke: colourOf(network), "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" };
  return makeSvg("polyline", { points: corners, ...looks });
}

/** @param {string} network */
const colourOf = (network) => NETWORKS[network]?.colour ?? OTHER_COLOUR;
