import assert from "node:assert/strict";
import { test } from "node:test";

import { PromptHistory } from "../../../js/player/prompt_history.js";

function setUp(stored = null) {
  const store = { value: stored };
  const history = new PromptHistory({ read: () => store.value, write: (prompts) => (store.value = prompts) });
  return { history, store };
}

test("one goes back through what was typed, and forth to what was being typed", () => {
  const { history } = setUp();
  for (const prompt of ["a", "b"]) history.add(prompt);
  const steps = [-1, -1, -1, 1, 1, 1].map((direction) => history.step(direction, "draft", []));
  assert.deepEqual(steps, ["b", "a", null, "b", "draft", null]);
});

test("prompts of the timeline come before those that were typed, and none twice", () => {
  const { history } = setUp(["typed"]);
  const steps = [-1, -1, -1, -1].map((direction) => history.step(direction, "", ["of the timeline", "typed"]));
  assert.deepEqual(steps, ["typed", "of the timeline", null, null]);
});

test("a step that would show the same text again goes further", () => {
  const { history } = setUp(["a", "b"]);
  assert.equal(history.step(-1, "b", []), "a");
});

test("an edit, or a sent prompt, begins at the newest again", () => {
  const { history } = setUp(["a", "b"]);
  history.step(-1, "", []);
  history.step(-1, "a", []);
  history.leave();
  assert.equal(history.step(-1, "ax", []), "b");
  history.add("ax");
  assert.equal(history.step(-1, "", []), "ax");
});

test("a prompt that is typed again is the newest, and only so many are kept", () => {
  const { history, store } = setUp();
  for (let k = 0; k < 60; k++) history.add(`p${k}`);
  history.add("p30");
  assert.equal(store.value.length, 50);
  assert.equal(store.value.at(-1), "p30");
  assert.equal(store.value.filter((one) => one === "p30").length, 1);
});

test("what another version stored is no error", () => {
  for (const stored of [null, 7, {}, "x", [1, null, "a"]]) assert.ok(Array.isArray(setUp(stored).history.prompts));
});
