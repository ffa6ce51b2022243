import assert from "node:assert/strict";
import { test } from "node:test";
import { factsOf, isNews, keyOf, nameToKeep, soleOrigin, titleOf } from "../../../js/sessions/model.js";
import { translator } from "../../../js/lib/i18n.js";
import "../texts.js";

const SAVED = {
  name: "shelf/red_00001_.session",
  kind: "saved",
  node_id: null,
  chunks: 12,
  frames: 36,
  width: 832,
  height: 480,
  model: "1536x30-aabbccddeeff",
  bytes: 2_516_582,
  modified: 1_760_000_000,
  picture: null,
};
const LIVE = { ...SAVED, name: "3:7", kind: "live", node_id: "3:7", bytes: null, modified: null };

test("a card says what the session holds, how large and old it is, and whose", () => {
  for (const locale of ["en", "zh"]) {
    const [held, file, model] = factsOf(SAVED, translator(locale), locale);
    for (const fact of ["12", "36", "832 × 480"]) assert.ok(held.includes(fact), held);
    assert.match(file, /2\.4 MiB · .*25/);
    assert.match(model, /1536x30-aabbccddeeff/);
  }
});

test("a live session is named by its node and has no file", () => {
  assert.match(titleOf(LIVE, translator("en")), /3:7/);
  assert.equal(factsOf(LIVE, translator("en"), "en").length, 2);
});

test("a damaged file says what is wrong with it instead", () => {
  const broken = { ...SAVED, chunks: null, frames: null, width: null, height: null, model: null, error: "cut short" };
  const lines = factsOf(broken, translator("en"), "en");
  assert.equal(lines[0], "cut short");
  assert.ok(!lines.join().includes("null"));
});

test("a file is shown without its ending, in its folder", () => {
  assert.equal(titleOf(SAVED, translator("en")), "shelf/red_00001_");
});

test("a card stays while its entry grows, and not when another takes its name", () => {
  assert.equal(keyOf(SAVED), keyOf({ ...SAVED, chunks: 13, bytes: 1 }));
  assert.notEqual(keyOf(SAVED), keyOf({ ...SAVED, error: "cut short" }));
  assert.notEqual(keyOf(SAVED), keyOf({ ...SAVED, kind: "interrupted" }));
});

test("the name under which a live session is kept is one that the server takes", () => {
  assert.equal(nameToKeep(LIVE), "fork of node 3-7");
  assert.match(nameToKeep({ ...LIVE, node_id: "../7" }), /^[\w .-]+$/);
});

test("a run's end is news, and so is a run that is not listed yet", () => {
  for (const state of ["ended", "interrupted", "failed"]) assert.ok(isNews({ state, node_id: "3:7" }, [LIVE]));
  assert.ok(isNews({ state: "running", node_id: "7" }, [LIVE]));
  assert.ok(!isNews({ state: "running", node_id: "3:7" }, [LIVE]));
});

const wired = (type, origins) => ({ type, origins });
const originOf = (node, input) => node.origins[input] ?? null;

test("an input is wired by itself only where the graph leaves no choice", () => {
  const [one, two] = [{ id: 1 }, { id: 2 }];
  const session = wired("SFSession", { model: { node: one, slot: 0 } });
  assert.equal(soleOrigin([], "model", originOf), null);
  assert.equal(soleOrigin([session, session], "model", originOf).node, one);
  assert.equal(soleOrigin([session, wired("SFSession", { model: { node: two, slot: 0 } })], "model", originOf), null);
  assert.equal(soleOrigin([session, wired("SFSession", { model: { node: one, slot: 1 } })], "model", originOf), null);
  assert.equal(soleOrigin([session, wired("KSampler", { model: { node: two, slot: 0 } })], "model", originOf).node, one);
  assert.equal(soleOrigin([session, wired("SFSession", {})], "model", originOf).node, one);
});
