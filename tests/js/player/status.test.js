import assert from "node:assert/strict";
import { test } from "node:test";

import { translator } from "../../../js/lib/i18n.js";
import { runDetails, runStatus } from "../../../js/player/status.js";
import "../texts.js";

const T = translator("en");
const RUNNING = {
  ...{ node_id: "5", run: "a", state: "running", fps: 16, chunk: 7, chunks: 20, frames: 84, first_frame: 0, first_new: 0 },
  ...{ made_fps: 24.13, first_seconds: 0.42, cache_bytes: 3.1 * 2 ** 30, steerable: true, prompt: "", note: "", model: "longlive.safetensors" },
  ...{ actions: [], rows: "", seconds: 0, video: null, session: null, seeds: { 3: { seed: 5 }, 4: { noise_seed: "6" } }, drift: null },
};
const SEEN = { frame: 58, empty: false, late: false, paused: false, interruptions: 0, shownFps: 16 };
const status = (state, seen) => runStatus({ ...RUNNING, ...state }, { ...SEEN, ...seen }, T);

test("one line says where the video is, how many chunks are made, and how fast", () => {
  const { state, facts } = status({}, {});
  assert.equal(state, "Running");
  assert.deepEqual(facts, ["3.63 s", "frame 58", "chunk 7 of 20", "24 fps"]);
});

test("of an ended run one sees how long the video is, and no speed", () => {
  assert.deepEqual(status({ state: "ended" }, { frame: 58 }).facts, ["3.63 of 5.25 s", "frame 58", "chunk 7 of 20"]);
});

test("every frame has a second of its own", () => {
  const seconds = [58, 59, 60].map((frame) => status({}, { frame }).facts[0]);
  assert.equal(new Set(seconds).size, 3);
});

test("what is not known yet is left out", () => {
  const begun = { chunk: 0, chunks: 0, made_fps: 0, first_seconds: null, cache_bytes: 0, seeds: {}, model: "" };
  const { state, facts } = status(begun, { empty: true, frame: 0, shownFps: null });
  assert.equal(state, T("player.waitingFirst"));
  assert.deepEqual(facts, []);
  assert.deepEqual(runDetails({ ...RUNNING, ...begun }, { ...SEEN, shownFps: null, size: "" }, T), []);
});

test("the state of a run is said in a word, and what the viewer did only if the run goes on", () => {
  const said = (state, seen) => status(state, seen).state;
  assert.equal(said({}, { late: true }), T("player.late"));
  assert.equal(said({}, { paused: true, late: true }), T("player.paused"));
  assert.equal(said({ state: "paused" }, { late: true }), T("player.runPaused"));
  assert.equal(said({ state: "stopping" }, {}), T("player.stopping"));
  assert.equal(said({ state: "failed" }, { paused: true }), T("player.failed"));
  assert.equal(said({ state: "ended" }, {}), T("player.stopped"));
  assert.equal(said({ state: "ended", chunks: 0 }, {}), T("player.stopped"));
  assert.equal(said({ state: "ended", chunk: 20 }, {}), T("player.finished"));
});

test("the rest is in the details, and says whether the model keeps up", () => {
  const details = (state) => Object.fromEntries(runDetails({ ...RUNNING, ...state }, { ...SEEN, size: "64 × 64" }, T));
  const shown = details({});
  assert.equal(shown[T("player.detailMade")], "24.1 fps of work: keeps up with 16");
  assert.equal(shown[T("player.detailFirst")], "0.4 s");
  assert.equal(shown[T("player.detailCache")], "3.1 GiB");
  assert.equal(shown[T("player.detailSeed")], "5, 6");
  assert.equal(shown[T("player.detailModel")], "longlive.safetensors");
  assert.equal(details({ made_fps: 9 })[T("player.detailMade")], "9.0 fps of work: slower than 16");
});

test("the newest chunk's drift is in the line while it is above the limit, and always in the details", () => {
  const now = { drift: 0.62, spread: 1.1, sharpness: 0.9, motion: 0.4, similarity: -0.2, saturation: null };
  const drift = { threshold: 0.5, points: [[0, 0], [1, 0.62]], now };
  assert.equal(status({ drift }, {}).facts.at(-1), "drift 0.62");
  assert.equal(status({ drift: { ...drift, threshold: 0.7 } }, {}).facts.at(-1), "24 fps");
  assert.equal(status({ drift: { ...drift, threshold: 0 } }, {}).facts.at(-1), "24 fps"); // asked for every chunk
  const details = Object.fromEntries(runDetails({ ...RUNNING, drift }, { ...SEEN, size: "" }, T));
  assert.equal(details[T("player.detailDrift")], "0.62 (limit 0.5)");
  assert.equal(details[T("player.detailLook")], "spread 1.10 · sharpness 0.90 · motion 0.40 · similarity -0.20");
});
