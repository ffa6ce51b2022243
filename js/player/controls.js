import { make, makeSvg } from "../lib/dom.js";

/** Drawings of 16 x 16. */
const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  loop:
    "M4 4.5h6V2l4 3.5-4 3.5V6.5H4.5v3h-2V6A1.5 1.5 0 0 1 4 4.5z" +
    "m8 7H6V14l-4-3.5L6 7v2.5h5.5v-3h2V10a1.5 1.5 0 0 1-1.5 1.5z",
  live: "M2 3l6 5-6 5zM8 3l6 5-6 5z",
  camera: "M2 4.5h3L6 3h4l1 1.5h3v8.5H2zM8 6a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
};

/** @type {Record<Size, TextKey>} */
const SIZES = { fit: "player.fit", natural: "player.natural", double: "player.double" };

/**
 * @typedef {"fit" | "natural" | "double"} Size of the picture
 *
 * @typedef {object} Actions of the buttons and the slider
 * @property {() => void} toggle plays or pauses
 * @property {(seconds: number) => void} seek
 * @property {() => void} loop
 * @property {() => void} live
 * @property {() => void} size
 * @property {() => void} snapshot
 * @property {() => void} replay
 *
 * @typedef {object} View
 * @property {number} at seconds, as `from` and `to`
 * @property {number} from
 * @property {number} to
 * @property {number} step seconds of a frame
 * @property {boolean} playing
 * @property {boolean} loops
 * @property {number | null} behind seconds to the newest frame; null: the run is not live
 * @property {Size} size
 * @property {boolean} canReplay
 */

/** @param {keyof typeof ICONS} name */
function icon(name) {
  const path = makeSvg("path", { d: ICONS[name], fill: "currentColor", "fill-rule": "evenodd" });
  return makeSvg("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": true }, path);
}

/** @type {(button: HTMLButtonElement, text: string) => void} */
function name(button, text) {
  button.title = text;
  button.setAttribute("aria-label", text);
}

/**
 * Makes the row of controls below the picture.
 *
 * @param {Translate} t
 * @param {Actions} actions
 */
export function createControls(t, actions) {
  /** @type {(label: TextKey, onclick: () => void, ...content: (Node | string)[]) => HTMLButtonElement} */
  const button = (label, onclick, ...content) => {
    const made = make("button", { type: "button", onclick }, ...content);
    name(made, t(label));
    return made;
  };
  const play = button("player.play", actions.toggle);
  const label = t("player.position");
  const position = make("input", { type: "range", min: 0, step: "any", className: "sf-place", "aria-label": label });
  position.oninput = () => actions.seek(Number(position.value));
  const time = make("span", { className: "sf-time" });
  const loop = button("player.loop", actions.loop, icon("loop"));
  const live = button("player.goLive", actions.live, icon("live"));
  const size = button("player.size", actions.size);
  const snapshot = button("player.snapshot", actions.snapshot, icon("camera"));
  const replay = button("player.replayTooltip", actions.replay, t("player.replay"));
  const all = [play, position, time, loop, live, size, snapshot, replay];

  /** @param {View} view */
  function show({ at, from, to, step, ...view }) {
    play.replaceChildren(icon(view.playing ? "pause" : "play"));
    name(play, t(view.playing ? "player.pause" : "player.play"));
    Object.assign(position, { min: from, max: Math.max(from, to - step), step });
    position.value = String(at);
    time.textContent = t("player.time", { at: at.toFixed(1), to: to.toFixed(1) });
    position.setAttribute("aria-valuetext", time.textContent);
    loop.setAttribute("aria-pressed", String(view.loops));
    showBehind(view.behind, step);
    size.textContent = t(SIZES[view.size]);
    replay.hidden = !view.canReplay;
  }

  /** @type {(behind: number | null, step: number) => void} */
  function showBehind(behind, step) {
    live.hidden = behind === null;
    if (behind === null) return;
    live.disabled = behind < step;
    name(live, live.disabled ? t("player.goLive") : t("player.goLiveBehind", { n: behind.toFixed(1) }));
  }

  return { element: make("div", { className: "sf-controls" }, ...all), show };
}
