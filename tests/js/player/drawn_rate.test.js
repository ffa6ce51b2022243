import assert from "node:assert/strict";
import { test } from "node:test";

import { DrawnRate } from "../../../js/player/drawn_rate.js";

test("pictures drawn are counted, a second of wall time, over the last two", () => {
  const rate = new DrawnRate();
  for (let k = 0; k < 80; k++) rate.count(k / 16);
  assert.ok(Math.abs(rate.fps(79 / 16) - 16) < 0.6);
  assert.equal(rate.fps(79 / 16 + 2.1), 0);
});

test("what was drawn in the first second is not taken for two", () => {
  const rate = new DrawnRate();
  for (let k = 0; k <= 16; k++) rate.count(5 + k / 16);
  assert.ok(Math.abs(rate.fps(6) - 16) < 1.1);
});
