import assert from "node:assert/strict";
import { test } from "node:test";

import { translator } from "../../../js/lib/i18n.js";
import { runBadge } from "../../../js/player/badge.js";
import "../texts.js";

const T = translator("en");
const RUNNING = {
  ...{ node_id: "5", run: "a", state: "running", fps: 16, chunk: 7, chunks: 20, frames: 84, first_frame: 0 },
  ...{ made_fps: 24.13, first_seconds: 0.42, cache_bytes: 3.1 * 2 ** 30, steerable: true, prompt: "", note: "" },
  ...{ actions: [], rows: "", seconds: 0, video: null },
};
const SEEN = { empty: false, late: false, paused: false, interruptions: 0, shownFps: 16 };

test("the badge says how fast the video is made and shown, and how much is there", () => {
  const { facts, status } = runBadge(RUNNING, SEEN, T);
  assert.equal(facts, "chunk 7/20 · 24.1 fps made · 16.0 shown · first frame 0.4 s · cache 3.1 GiB");
  assert.equal(status, "");
});

test("the badge leaves out what is not known yet", () => {
  const begun = { ...RUNNING, chunk: 0, chunks: 0, made_fps: 0, first_seconds: null, cache_bytes: 0 };
  const { facts, status } = runBadge(begun, { ...SEEN, empty: true, shownFps: null }, T);
  assert.equal(facts, "chunk 0");
  assert.equal(status, T("player.waitingFirst"));
});

test("the badge says what is the matter", () => {
  const said = (state, seen) => runBadge({ ...RUNNING, ...state }, { ...SEEN, ...seen }, T).status;
  assert.equal(said({}, { late: true }), T("player.late"));
  assert.equal(said({ made_fps: 9 }, { interruptions: 3 }), "Slower than real time: waits so far: 3");
  assert.equal(said({ made_fps: 20 }, { interruptions: 3 }), "");
  assert.equal(said({}, { paused: true, late: true }), T("player.paused"));
  assert.equal(said({ state: "paused" }, { late: true }), T("player.runPaused"));
  assert.equal(said({ state: "stopping" }, {}), T("player.stopping"));
  assert.equal(said({ state: "failed" }, {}), T("player.failed"));
  assert.equal(said({ state: "ended" }, {}), T("player.stopped"));
  assert.equal(said({ state: "ended", chunk: 20 }, {}), "");
});
