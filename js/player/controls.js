import { make } from "../lib/dom.js";
import { icon } from "./icons.js";
import { createPopup } from "./popup.js";

/**
 * @typedef {object} Actions of the buttons
 * @property {() => void} toggle plays or pauses
 * @property {(frames: number) => void} step
 * @property {() => void} live
 * @property {() => void} normalSpeed
 * @property {() => void} full
 * @property {(panel: HTMLElement) => void} fillMenu
 *
 * @typedef {object} View
 * @property {boolean} empty
 * @property {boolean} playing
 * @property {number | null} behind seconds to the newest frame; null: the run is not live
 * @property {boolean} atNewest whether there is nothing to skip
 * @property {number} speed
 * @property {boolean} full
 */

/**
 * Makes the row of controls below the picture.
 *
 * @param {Translate} t
 * @param {Actions} actions
 * @param {HTMLElement[]} more buttons of the run, which come before the last ones
 */
export function createControls(t, actions, more) {
  /** @type {(label: TextKey, onclick: () => void, ...content: (Node | string)[]) => HTMLButtonElement} */
  const button = (label, onclick, ...content) => {
    const made = make("button", { type: "button", onclick }, ...content);
    name(made, t(label));
    return made;
  };
  const play = button("player.play", actions.toggle, icon("play"));
  const back = button("player.back", () => actions.step(-1), icon("back"));
  const forth = button("player.forth", () => actions.step(1), icon("forth"));
  const live = button("player.goLive", actions.live, t("player.liveButton"));
  const speed = button("player.normalSpeed", actions.normalSpeed);
  const full = button("player.full", actions.full, icon("full"));
  const menu = button("player.menu", () => {}, icon("more"));
  const popup = createPopup(menu, t("player.menu"), actions.fillMenu);
  [live.className, speed.className] = ["sf-live", "sf-speed"];
  const space = make("span", { className: "sf-space" });
  const element = make("div", { className: "sf-row sf-controls" }, play, back, forth, live, speed, space, ...more, full, menu, popup);

  /** @type {View | null} */
  let shown = null;

  /** @param {View} view */
  function show(view) {
    if (shown && /** @type {(keyof View)[]} */ (Object.keys(view)).every((key) => shown?.[key] === view[key])) return;
    if (view.playing !== shown?.playing) {
      play.replaceChildren(icon(view.playing ? "pause" : "play"));
      name(play, t(view.playing ? "player.pause" : "player.play"));
    }
    if (view.full !== shown?.full) {
      full.replaceChildren(icon(view.full ? "small" : "full"));
      name(full, t(view.full ? "player.leaveFull" : "player.full"));
    }
    play.disabled = back.disabled = forth.disabled = view.empty;
    live.hidden = view.behind === null;
    live.classList.toggle("sf-now", view.atNewest);
    name(live, view.atNewest || view.behind === null ? t("player.goLive") : t("player.goLiveBehind", { n: view.behind.toFixed(1) }));
    speed.hidden = view.speed === 1;
    speed.textContent = `${view.speed}×`;
    shown = view;
  }

  return { element, show };
}

/** @type {(button: HTMLButtonElement, text: string) => void} */
function name(button, text) {
  button.title = text;
  button.ariaLabel = text.replace(/ \([^)]*\)$/, ""); // without the key
}
