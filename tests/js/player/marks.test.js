import assert from "node:assert/strict";
import { test } from "node:test";

import { translator } from "../../../js/lib/i18n.js";
import { chunksPerLine, describeMark, marksOf, nearestMark, promptsOf } from "../../../js/player/marks.js";
import "../texts.js";

const T = translator("en");
const ROWS = "0: a red circle\n2.8125 cut: a blue square\n5.0625 seed 77:\n1.5 blend 3: a green ring";

test("prompts, cuts and re-rolls are marked at the frames where they took effect, in order", () => {
  assert.deepEqual(marksOf(ROWS, 16), [
    { frame: 0, kinds: ["prompt"], prompt: "a red circle" },
    { frame: 24, kinds: ["prompt"], prompt: "a green ring" },
    { frame: 45, kinds: ["prompt", "cut"], prompt: "a blue square" },
    { frame: 81, kinds: ["reroll"], prompt: "" },
  ]);
  assert.deepEqual(marksOf("", 16), []);
  assert.deepEqual(marksOf("no row", 16), []);
});

test("a video that shows only the later part of a session has the later marks", () => {
  assert.deepEqual(marksOf(ROWS, 16, 2.8125).map(({ frame }) => frame), [0, 36]);
});

test("a mark is said in words", () => {
  const words = marksOf(ROWS, 16).map((mark) => describeMark(mark, T));
  assert.deepEqual(words, ["a red circle", "a green ring", "cut · a blue square", "re-rolled"]);
});

test("a click near a mark is meant for the nearest one", () => {
  const marks = marksOf(ROWS, 16);
  assert.equal(nearestMark(marks, 43, 5)?.frame, 45);
  assert.equal(nearestMark(marks, 34, 11)?.frame, 24);
  assert.equal(nearestMark(marks, 60, 5), undefined);
});

test("the prompts of timelines are offered once each", () => {
  assert.deepEqual(promptsOf(["", "0: a\n1: b", "2: b\n3: c"]), ["a", "b", "c"]);
});

test("lines between chunks stay apart, however many there are", () => {
  for (const pixels of [40, 8, 3, 0.5, 0.001]) assert.ok(chunksPerLine(pixels) * pixels >= 7);
  assert.equal(chunksPerLine(40), 1);
  assert.ok(Number.isFinite(chunksPerLine(0)));
});
