import assert from "node:assert/strict";
import { test } from "node:test";
import { factsOf, isNews, keyOf, soleOrigin, titleOf } from "../../../js/sessions/model.js";
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
  prompt: "a red fox in the snow",
  seconds: 8.8125,
  model_name: "self_forcing_dmd",
  workflow: "fox",
};
const LIVE = { ...SAVED, name: "3:7", kind: "live", node_id: "3:7", bytes: null, modified: null };

test("a card says what the session holds, what made it, how large and old it is", () => {
  for (const locale of ["en", "zh"]) {
    const [prompt, held, source, file] = factsOf(SAVED, translator(locale), locale);
    assert.equal(prompt, SAVED.prompt);
    for (const fact of ["8.8", "12", "832 × 480"]) assert.ok(held.includes(fact), held);
    assert.equal(source, "self_forcing_dmd · fox");
    assert.match(file, /2\.4 MiB · .*25/);
  }
});

test("a card says what is known: of an older file the model's fingerprint, and no prompt", () => {
  const lines = factsOf({ ...SAVED, prompt: "", model_name: "", workflow: "" }, translator("en"), "en");
  assert.equal(lines.length, 3);
  assert.match(lines[1], /1536x30-aabbccddeeff/);
});

test("a live session and one that ended are named by their prompt, else by their node or file", () => {
  const t = translator("en");
  assert.equal(titleOf(LIVE, t), SAVED.prompt);
  assert.equal(titleOf({ ...SAVED, kind: "ended" }, t), SAVED.prompt);
  assert.match(titleOf({ ...LIVE, prompt: "" }, t), /3:7/);
  assert.equal(titleOf({ ...SAVED, kind: "ended", prompt: "" }, t), "shelf/red_00001_");
  assert.equal(factsOf(LIVE, t, "en").length, 2, "no file, and the prompt once");
});

test("a damaged file says what is wrong with it instead", () => {
  const none = { chunks: null, frames: null, width: null, height: null, model: null, seconds: null, prompt: "" };
  const lines = factsOf({ ...SAVED, ...none, error: "cut short" }, translator("en"), "en");
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
