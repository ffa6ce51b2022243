import assert from "node:assert/strict";
import { test } from "node:test";
import { isFrames, isState, isWithdrawn } from "../../../js/lib/messages.js";

const STATE = {
  ...{ prompt_id: "p", refused: { count: 0, prompt: "" } },
  ...{ node_id: "7", run: "ab", workflow: "", state: "running", fps: 16, chunk: 2, chunks: 0, frames: 21, first_frame: 0 },
  ...{ made_fps: 30.5, first_seconds: 0.2, cache_bytes: 1000, steerable: true, prompt: "", note: "" },
  ...{ actions: [{ chunk: 1, action: "cut" }], rows: "0.5: a red circle", seconds: 1.25 },
  ...{ seeds: { 3: { seed: 5, noise_seed: "18446744073709551615" } }, video: null, training: null, drift: null },
  ...{ model: "", first_new: 0, session: null, begins: 0, video_so_far: null },
};
const LOSSES = { generator: [[0.5, 0.1]], critic: [] };
const TRAINING = { stage: "causal", step: 1, of: 5, left: 3.5, losses: LOSSES, file: "" };
const FRAMES = { node_id: "7", run: "ab", chunk: 1, first: 9, count: 12, numbers: [9, 20], frames: ["x", "y"] };
const GARBAGE = [undefined, null, true, -1, 1.5, NaN, "", "x", [], {}, [null], { run: 1 }, "9".repeat(400), 2 ** 60];

test("messages as docs/live.md has them are taken", () => {
  assert.ok(isState(STATE));
  assert.ok(isState({ ...STATE, first_seconds: null, video: { filename: "a.mp4", subfolder: "", type: "temp" } }));
  assert.ok(isState({ ...STATE, training: TRAINING, session: "a red circle at chunk 7 (12.00.00).session" }));
  assert.ok(isFrames(FRAMES));
  assert.ok(isFrames({ ...FRAMES, chunk: -1, numbers: [], frames: [] }), "frames that are older than the run");
  assert.ok(isWithdrawn({ node_id: "7", run: "ab", chunk: 1, first: 9 }));
});

test("no part of a message may be anything else", () => {
  const free = { steerable: true, chunk: true }; // a flag, and a number that is only shown
  const empty = (name, value) => name === "seeds" && JSON.stringify(value) === "{}";
  for (const [sound, is] of [[STATE, isState], [FRAMES, isFrames]])
    for (const name of Object.keys(sound).filter((one) => !free[one]))
      for (const value of [undefined, {}, [null], -1.5, NaN].filter((one) => !empty(name, one)))
        assert.ok(!is({ ...sound, [name]: value }), `${name}: ${JSON.stringify(value)}`);
});

test("no part of what a training says may be anything else", () => {
  const wrong = [{ losses: { generator: [[0.5]] } }, { losses: { critic: [[0.5, null]] } }, { losses: [] }, { left: -1 }];
  for (const change of [...wrong, { step: 1.5 }, { of: "5" }, { file: null }, { stage: 7 }])
    assert.ok(!isState({ ...STATE, training: { ...TRAINING, ...change } }), JSON.stringify(change));
});

test("a chunk's pictures are of its own frames, one each", () => {
  assert.ok(!isFrames({ ...FRAMES, numbers: [8, 20] }));
  assert.ok(!isFrames({ ...FRAMES, numbers: [9, 21] }));
  assert.ok(!isFrames({ ...FRAMES, numbers: [9] }));
});

test("10,000 messages of garbage are none, and nothing is thrown", () => {
  let seed = 1;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let k = 0; k < 10_000; k++) {
    const [sound, is] = [[STATE, isState], [FRAMES, isFrames], [FRAMES, isWithdrawn]][random(3)];
    const message = random(5) ? { ...sound } : GARBAGE[random(GARBAGE.length)];
    const spoilt = ["node_id", "run"][random(2)];
    if (message === Object(message)) message[spoilt] = GARBAGE[random(6)];
    assert.ok(!is(message));
  }
});
