import { formatBytes } from "../lib/format.js";
import { isLive } from "./runs.js";

/** What the player says of a run: its state in a word, a line of facts, and details on demand. */

/**
 * @typedef {import("../lib/messages.js").RunState} RunState
 *
 * @typedef {object} Playback of the player
 * @property {number} frame that is shown
 * @property {boolean} empty
 * @property {boolean} late
 * @property {boolean} paused by the viewer
 * @property {number} interruptions
 * @property {number | null} shownFps null if not measured
 *
 * @typedef {"idle" | "live" | "held" | "late" | "ended" | "failed"} Tone which colour the state has
 * @typedef {{tone: Tone, state: string, facts: string[]}} Status
 * @typedef {[label: string, value: string][]} Details
 */

/** @type {(t: Translate) => Status} */
export const idleStatus = (t) => ({ tone: "idle", state: t("player.idle"), facts: [] });

/**
 * Returns the line about the run of a video.
 *
 * @param {RunState} state
 * @param {Playback} playback
 * @param {Translate} t
 * @returns {Status}
 */
export function runStatus(state, playback, t) {
  const { chunk, chunks, made_fps, fps, frames } = state;
  const live = isLive(state);
  const second = (playback.frame / fps).toFixed(2);
  const facts = [
    !playback.empty && (live ? t("player.second", { n: second }) : t("player.time", { at: second, to: (frames / fps).toFixed(2) })),
    !playback.empty && t("player.frame", { n: playback.frame }),
    chunk && (chunks ? t("player.chunkOf", { n: chunk, m: chunks }) : t("player.chunk", { n: chunk })),
    live && made_fps && t("player.fps", { n: made_fps.toFixed(made_fps < 10 ? 1 : 0) }),
    drifts(state) && t("player.drift", { n: state.drift?.now.drift.toFixed(2) ?? "" }),
  ];
  return { ...stateOf(state, playback, t), facts: facts.filter((fact) => typeof fact === "string") };
}

/** @type {(state: RunState, playback: Playback, t: Translate) => {tone: Tone, state: string}} */
function stateOf(state, playback, t) {
  const { chunk, chunks } = state;
  if (state.state === "paused") return { tone: "held", state: t("player.runPaused") };
  if (state.state === "stopping") return { tone: "held", state: t("player.stopping") };
  if (state.state === "interrupted") return { tone: "failed", state: t("player.interrupted") };
  if (state.state === "failed") return { tone: "failed", state: t("player.failed") };
  if (state.state === "ended") return { tone: "ended", state: t(chunk < chunks ? "player.stopped" : endOf(chunks)) };
  if (playback.empty) return { tone: "held", state: t("player.waitingFirst") };
  if (playback.paused) return { tone: "held", state: t("player.paused") };
  if (playback.late) return { tone: "late", state: t("player.late") };
  return { tone: "live", state: t("player.live") };
}

/** @type {(chunks: number) => TextKey} */
const endOf = (chunks) => (chunks ? "player.finished" : "player.stopped");

/**
 * Returns what is said on demand.
 *
 * @param {RunState} state
 * @param {Playback & {size: string}} playback
 * @param {Translate} t
 * @returns {Details}
 */
export function runDetails(state, playback, t) {
  const { made_fps, fps, first_seconds, cache_bytes, seeds, model } = state;
  const rate = { n: made_fps.toFixed(1), fps: Number(fps.toFixed(2)) };
  /** @type {[label: TextKey, value: string | number | null | false][]} */
  const details = [
    ["player.detailSize", playback.size],
    ["player.detailFirst", first_seconds !== null && t("player.seconds", { n: first_seconds.toFixed(1) })],
    ["player.detailMade", made_fps > 0 && t(made_fps < fps ? "player.madeSlower" : "player.madeKeepsUp", rate)],
    ["player.detailShown", playback.shownFps !== null && t("player.fps", { n: playback.shownFps.toFixed(1) })],
    ["player.detailWaits", playback.interruptions],
    ["player.detailModel", model],
    ["player.detailCache", cache_bytes > 0 && formatBytes(cache_bytes)],
    ["player.detailSeed", seedsOf(seeds)],
    ["player.detailDrift", driftOf(state.drift, t)],
    ["player.detailLook", lookOf(state.drift, t)],
    ["player.detailPrompt", state.prompt],
  ];
  return details.flatMap(([label, value]) => (value ? [[t(label), String(value)]] : []));
}

/** Whether the newest chunk is too far away from the first ones. @type {(state: RunState) => boolean} */
const drifts = ({ drift }) => drift !== null && drift.threshold > 0 && drift.now.drift > drift.threshold;

/** @type {(drift: RunState["drift"], t: Translate) => string | null} */
const driftOf = (drift, t) => drift && t("player.driftOf", { n: drift.now.drift.toFixed(2), limit: drift.threshold });

/** @type {(drift: RunState["drift"], t: Translate) => string | null} */
function lookOf(drift, t) {
  if (!drift) return null;
  const { spread, sharpness, motion, similarity, saturation } = drift.now;
  /** @type {[TextKey, number | null][]} */
  const measures = [
    ["player.spread", spread],
    ["player.saturation", saturation],
    ["player.sharpness", sharpness],
    ["player.motion", motion],
    ["player.similarity", similarity],
  ];
  return measures.flatMap(([name, value]) => (value === null ? [] : [t(name, { n: value.toFixed(2) })])).join(" · ");
}

/** @param {RunState["seeds"]} seeds */
const seedsOf = (seeds) => [...new Set(Object.values(seeds).flatMap((inputs) => Object.values(inputs)))].join(", ");
