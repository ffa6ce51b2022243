import assert from "node:assert/strict";
import { test } from "node:test";

import { BoundKeys } from "../../../js/player/bound_keys.js";

/** Keys of a node whose run has this state. */
function keysIn(state) {
  const pressed = [];
  const face = { takesAll: true, hasKeys: true, bar: { press: (action) => pressed.push(action) }, bezel: { flash() {} }, screen: { showsVideo: true } };
  const parts = { face: () => face, playback: () => ({ queue: {} }), state: () => state, changed() {} };
  const node = { properties: { keys: "w = a red circle\nx = cut" } };
  return { keys: new BoundKeys(node, (text, { keys }) => `${text} ${keys}`, parts), pressed };
}

test("while a run lasts, bound keys steer it", () => {
  const { keys, pressed } = keysIn({ state: "running", steerable: true });
  assert.equal(keys.message, "keys.steer W X");
  keys.actionOf("w")();
  assert.deepEqual(pressed, [{ action: "prompt", prompt: "a red circle" }]);
  assert.equal(keys.actionOf("q"), undefined);
});

test("a run without a text encoder takes cuts, and no prompts", () => {
  const { keys } = keysIn({ state: "running", steerable: false });
  assert.equal(keys.message, "keys.steer X");
  assert.equal(keys.actionOf("w"), undefined, "the key is the player's or the editor's");
  assert.ok(keys.actionOf("x"));
});

test("without a run that takes them, keys do nothing of their own", () => {
  for (const state of [null, { state: "ended", steerable: true }, { state: "stopping", steerable: true }]) {
    const { keys } = keysIn(state);
    assert.equal(keys.steer, false);
    assert.equal(keys.message, "");
    assert.equal(keys.actionOf("w"), undefined);
  }
});
