import assert from "node:assert/strict";
import { test } from "node:test";
import { trainingBadge } from "../../../js/player/loss_curve.js";
import { translator } from "../../../js/lib/i18n.js";
import "../texts.js";

const T = translator("en");
const AT_WORK = { stage: "self-forcing", step: 12, of: 80, left: 130, losses: {}, file: "" };

const badge = (state, training) => trainingBadge({ state, training }, T);

test("a training says where it is and how long it will take", () => {
  assert.equal(badge("running", AT_WORK).facts, "self forcing 12/80 · 2 min left");
  assert.equal(badge("running", { ...AT_WORK, stage: "causal", left: 12.2 }).facts, "causal start 12/80 · 13 s left");
  assert.match(badge("running", { ...AT_WORK, left: 9000 }).facts, /2\.5 h left/);
  assert.equal(badge("running", null).status, "Preparing the training");
});

test("the file with the result is named, however the training ended", () => {
  const file = "loras/mine.safetensors";
  assert.equal(badge("ended", { ...AT_WORK, file }).status, "loras/mine.safetensors is ready");
  assert.equal(
    badge("interrupted", { ...AT_WORK, file }).status,
    "Interrupted: loras/mine.safetensors holds the training so far; Run continues it",
  );
  assert.equal(badge("failed", AT_WORK).status, "Failed");
  assert.equal(badge("interrupted", null).status, "Interrupted");
});

test("a stage that a newer server has is shown by its name", () => {
  assert.match(badge("running", { ...AT_WORK, stage: "polish" }).facts, /^polish/);
});
