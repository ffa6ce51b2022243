import { make } from "../lib/dom.js";
import { formatBytes } from "../lib/format.js";

/** The lines over the player's picture. */

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 * @typedef {{facts: string, status: string}} Badge
 * @typedef {{empty: boolean, late: boolean, paused: boolean, interruptions: number, shownFps: number | null}} Playback
 *   of the player; shownFps: null if not measured
 */

export const EMPTY_BADGE = { facts: "", status: "" };

/** The elements of a badge. */
export class BadgeLines {
  #lines = {
    facts: make("div", { className: "sf-facts" }),
    status: make("div", { className: "sf-status", role: "status" }),
  };
  element = make("div", { className: "sf-badge" }, ...Object.values(this.#lines));

  /** @param {Badge} badge */
  show(badge) {
    for (const name of /** @type {const} */ (["facts", "status"])) {
      const line = this.#lines[name];
      if (line.textContent !== badge[name]) line.textContent = badge[name]; // screen readers read each change aloud
    }
  }
}

/**
 * Returns the lines about the run of a video.
 *
 * @param {RunState} state
 * @param {Playback} playback
 * @param {Translate} t
 * @returns {Badge}
 */
export function runBadge(state, playback, t) {
  const { chunk, chunks, made_fps, first_seconds, cache_bytes } = state;
  const facts = [
    chunks ? t("player.chunkOf", { n: chunk, m: chunks }) : t("player.chunk", { n: chunk }),
    made_fps && t("player.madeFps", { n: made_fps.toFixed(1) }),
    playback.shownFps !== null && t("player.shownFps", { n: playback.shownFps.toFixed(1) }),
    first_seconds !== null && t("player.firstFrame", { n: first_seconds.toFixed(first_seconds < 10 ? 1 : 0) }),
    cache_bytes && t("player.cache", { size: formatBytes(cache_bytes) }),
  ];
  return { facts: facts.filter(Boolean).join(" · "), status: status(state, playback, t) };
}

/** @type {(state: RunState, playback: Playback, t: Translate) => string} */
function status(state, playback, t) {
  if (state.state === "paused") return t("player.runPaused");
  if (state.state === "stopping") return t("player.stopping");
  if (state.state === "interrupted") return t("player.interrupted");
  if (state.state === "failed") return t("player.failed");
  if (state.state === "ended") return state.chunk < state.chunks || !state.chunks ? t("player.stopped") : "";
  if (playback.empty) return state.chunk ? "" : t("player.waitingFirst");
  if (playback.paused) return t("player.paused");
  if (playback.late) return t("player.late");
  const isSlow = playback.interruptions && state.made_fps < state.fps;
  return isSlow ? t("player.slow", { n: playback.interruptions }) : "";
}
