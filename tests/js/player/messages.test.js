import assert from "node:assert/strict";
import { test } from "node:test";

import { Messages } from "../../../js/player/messages.js";
import { translator } from "../../../js/lib/i18n.js";
import "../texts.js";

const LIVE = { state: "running", note: "", fps: 16, made_fps: 24, session: null, training: null };
const ENDED = { ...LIVE, state: "ended", session: "a.session" };
const FACTS = {
  ...{ state: LIVE, bar: null, steers: true, ends: true, trains: false, empty: true, interruptions: 0, keys: "" },
  actions: { information: "", kept: "" },
};

const messages = () => new Messages(translator("en"));

test("a refusal comes before what the user has just done, and that before what waits", () => {
  const warning = { text: "refused", tone: "warn" };
  const waits = { text: "Next chunk: a cat", tone: "wait" };
  const actions = { information: "Frame saved as PNG", kept: "" };
  assert.equal(messages().of({ ...FACTS, bar: warning, actions }), warning);
  assert.equal(messages().of({ ...FACTS, bar: waits, actions }).text, "Frame saved as PNG");
  assert.equal(messages().of({ ...FACTS, bar: waits }), waits);
});

test("the server's text on its work is shown until there are frames, but not the facts, which have a line", () => {
  const said = messages();
  said.showProgress("loading the model");
  assert.equal(said.of(FACTS).text, "loading the model");
  said.waiting = 2;
  assert.equal(said.of({ ...FACTS, empty: false }).text, "Runs that wait for the current one to end: 2");
  said.showProgress("chunk 3/7 · 24 fps · cache 3.1 GiB");
  assert.equal(said.of({ ...FACTS, empty: true }).text, "Runs that wait for the current one to end: 2");
});

test("that playback waits is said of a model that is slower than the video", () => {
  assert.equal(messages().of({ ...FACTS, interruptions: 1 }).text, "");
  const slow = { ...FACTS, interruptions: 1, state: { ...LIVE, made_fps: 12 } };
  assert.match(messages().of(slow).text, /^Slower than real time/);
});

test("after the end it says what one can do, and under which name a session was kept", () => {
  assert.match(messages().of({ ...FACTS, state: ENDED }).text, /^Continue goes on from here/);
  assert.equal(messages().of({ ...FACTS, state: ENDED, ends: false }), null);
  const actions = { information: "", kept: "a red circle" };
  assert.equal(messages().of({ ...FACTS, state: ENDED, actions }).text, "Kept as a red circle");
  assert.equal(messages().of({ ...FACTS, state: null }), null);
});

test("a node without a steering bar shows the note of its run", () => {
  const state = { ...LIVE, note: "the picture drifts" };
  assert.deepEqual(messages().of({ ...FACTS, steers: false, state }), { text: "the picture drifts", tone: "warn" });
});

test("that keys steer is said when there is nothing else to say of a live run", () => {
  const said = messages();
  const facts = { ...FACTS, empty: false, keys: "← → steer" };
  assert.equal(said.of(facts).text, "← → steer");
  assert.match(said.of({ ...facts, interruptions: 1, state: { ...LIVE, made_fps: 12 } }).text, /^Slower/);
  assert.notEqual(said.of({ ...facts, state: ENDED })?.text, "← → steer");
});
