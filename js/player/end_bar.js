import { make } from "../lib/dom.js";

/**
 * @typedef {object} EndActions each may fail with an Error
 * @property {() => unknown} goOn
 * @property {() => unknown} keep
 * @property {() => unknown} replay
 */

/**
 * Makes the buttons of a run that has ended.
 *
 * @param {Translate} t
 * @param {EndActions} actions
 * @param {(error: Error) => void} failed
 */
export function createEndBar(t, actions, failed) {
  /** @type {(label: TextKey, title: TextKey, act: () => unknown) => HTMLButtonElement} */
  const button = (label, title, act) => {
    const made = make("button", { type: "button", title: t(title) }, t(label));
    made.onclick = async () => {
      made.disabled = true;
      try {
        await act();
      } catch (error) {
        failed(/** @type {Error} */ (error));
      }
      made.disabled = false;
    };
    return made;
  };
  const goOn = button("player.continue", "player.continueTooltip", actions.goOn);
  const keep = button("player.keep", "player.keepTooltip", actions.keep);
  const replay = button("player.replay", "player.replayTooltip", actions.replay);
  const element = make("div", { className: "sf-row sf-ended" }, goOn, keep, replay);

  /** @param {{canContinue: boolean, canKeep: boolean, canReplay: boolean}} can */
  function show({ canContinue, canKeep, canReplay }) {
    goOn.hidden = !canContinue;
    keep.hidden = !canKeep;
    replay.hidden = !canReplay;
  }

  return { element, show };
}
