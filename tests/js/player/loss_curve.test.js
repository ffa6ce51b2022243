import assert from "node:assert/strict";
import { test } from "node:test";
import { trainingMessage, trainingStatus } from "../../../js/player/loss_curve.js";
import { translator } from "../../../js/lib/i18n.js";
import "../texts.js";

const T = translator("en");
const AT_WORK = { stage: "self-forcing", step: 12, of: 80, left: 130, losses: {}, file: "" };

const status = (state, training) => trainingStatus({ state, training }, T);
const message = (state, training) => trainingMessage({ state, training }, T);

test("a training says where it is and how long it will take", () => {
  assert.deepEqual(status("running", AT_WORK).facts, ["self forcing 12/80", "2 min left"]);
  assert.deepEqual(status("running", { ...AT_WORK, stage: "causal", left: 12.2 }).facts, ["causal start 12/80", "13 s left"]);
  assert.match(status("running", { ...AT_WORK, left: 9000 }).facts[1], /2\.5 h left/);
  assert.equal(status("running", null).state, "Preparing");
  assert.equal(status("failed", AT_WORK).state, "Failed");
  assert.equal(status("interrupted", null).state, "Interrupted");
});

test("the file with the result is named, however the training ended", () => {
  const file = "loras/mine.safetensors";
  assert.equal(message("ended", { ...AT_WORK, file }), "loras/mine.safetensors is ready");
  assert.equal(
    message("interrupted", { ...AT_WORK, file }),
    "loras/mine.safetensors holds the training so far; Run continues it",
  );
  assert.equal(message("failed", AT_WORK), "");
  assert.equal(message("running", null), "");
});

test("a stage that a newer server has is shown by its name", () => {
  assert.deepEqual(status("running", { ...AT_WORK, stage: "polish" }).facts[0], "polish");
});
