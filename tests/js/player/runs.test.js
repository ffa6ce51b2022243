import assert from "node:assert/strict";
import { test } from "node:test";

import { PendingActions, Runs, describeAction, isSteered } from "../../../js/player/runs.js";
import { translator } from "../../../js/lib/i18n.js";
import "../texts.js";

const T = translator("en");
const RUNNING = {
  ...{ prompt_id: "p", workflow: "w", refused: { count: 0, prompt: "" } },
  ...{ node_id: "5", run: "a", state: "running", fps: 16, chunk: 7, chunks: 20, frames: 84, first_frame: 0 },
  ...{ made_fps: 24.13, first_seconds: 0.42, cache_bytes: 3.1 * 2 ** 30, steerable: true, prompt: "", note: "" },
  ...{ actions: [], rows: "", seconds: 0, video: null },
};

test("actions in words", () => {
  const said = (action) => describeAction(action, T);
  assert.equal(said({ action: "prompt", prompt: "a cat", blend: 1 }), "a cat");
  assert.equal(said({ action: "prompt", prompt: "a cat", blend: 3 }), "a cat (over 3 chunks)");
  assert.equal(said({ action: "reroll", seed: "7" }), "re-rolled");
});

test("a run that nobody steered needs no replay", () => {
  assert.equal(isSteered({ ...RUNNING, rows: "0: a" }), false);
  assert.equal(isSteered({ ...RUNNING, rows: "0: a", actions: [{}] }), true);
  assert.equal(isSteered(null), false);
});

const PROMPT = { chunk: 3, action: "prompt", prompt: "a cat", blend: 1 };

test("a prompt is waited for until an action with it is in the state", () => {
  const pending = new PendingActions();
  const before = { ...RUNNING, actions: [PROMPT] }; // the same prompt, earlier
  pending.add({ action: "prompt", prompt: " a  cat", blend: 1 }, before);
  assert.deepEqual(pending.settle(before), []);
  assert.equal(pending.requests.length, 1);
  const taken = pending.settle({ ...RUNNING, actions: [PROMPT, { ...PROMPT, chunk: 9 }] });
  assert.deepEqual(taken.map((one) => one.chunk), [9]);
  assert.equal(pending.requests.length, 0);
});

test("two of the same are two", () => {
  const pending = new PendingActions();
  pending.add({ action: "reroll" }, RUNNING);
  pending.add({ action: "reroll" }, RUNNING);
  const first = { ...RUNNING, actions: [{ action: "reroll", chunk: 4 }] };
  assert.equal(pending.settle(first).length, 1);
  assert.equal(pending.requests.length, 1);
});

test("pause, resume and stop are done when the run's state says so", () => {
  const pending = new PendingActions();
  for (const action of ["pause", "stop", "resume"]) pending.add({ action }, { ...RUNNING, state: "starting" });
  pending.settle({ ...RUNNING, state: "paused" });
  assert.deepEqual(pending.requests.map((one) => one.action), ["stop", "resume"]);
  pending.settle(RUNNING);
  assert.deepEqual(pending.requests.map((one) => one.action), ["stop"]);
});

test("a prompt that the text encoder refuses is not waited for, and neither is one after it", () => {
  const pending = new PendingActions();
  const before = { ...RUNNING, refused: { count: 1, prompt: "a dog" } };
  for (const prompt of ["a  dog", "a cat"]) pending.add({ action: "prompt", prompt, blend: 1 }, before);
  assert.deepEqual(pending.settle(before), []);
  assert.equal(pending.requests.length, 2); // that refusal was of an earlier one
  pending.settle({ ...RUNNING, refused: { count: 2, prompt: "a dog" } });
  assert.deepEqual(pending.requests.map(({ prompt }) => prompt), ["a cat"]);
  pending.settle({ ...RUNNING, actions: [PROMPT], refused: { count: 2, prompt: "a dog" } });
  assert.deepEqual(pending.requests, []);
});

test("nothing is waited for from a run that has ended", () => {
  const pending = new PendingActions();
  pending.add({ action: "cut" }, RUNNING);
  pending.settle({ ...RUNNING, state: "ended" });
  assert.deepEqual(pending.requests, []);
});

class Listener {
  heard = [];
  run = null;
  showState(state, joined) {
    this.run = state.run;
    this.heard.push([state.run, joined]);
  }
  addFrames(message) {
    this.heard.push(message.chunk);
  }
  withdraw(message) {
    this.heard.push(-message.chunk);
  }
  showProgress(text) {
    this.heard.push(text);
  }
  showResult(output) {
    this.heard.push(output.sf_run[0]);
  }
}

/** Nodes are {ids}. The tab "one" is open, and has the workflow "w". */
function setUp(prompts = { p: "one", q: "two" }) {
  const tabs = { current: "one", workflow: "w", of: (prompt) => prompts[prompt] };
  const runs = new Runs({ idsOf: (node) => node.ids, tabs });
  const add = (ids) => {
    const [node, player] = [{ ids }, new Listener()];
    runs.add(node, player);
    return { node, player };
  };
  const open = (tab, ids) => {
    tabs.current = tab;
    const added = add(ids);
    runs.offer(added.node);
    return added;
  };
  return { runs, add, open, tabs };
}

test("what a run says reaches the node with its execution id, in whichever copy of a subgraph", () => {
  const { runs, add } = setUp();
  const [five, inner] = [add(["5"]), add(["3:7", "4:7"])];
  runs.state(RUNNING);
  runs.frames({ node_id: "4:7", run: "b", chunk: 1 });
  runs.frames({ node_id: "3:7", run: "c", chunk: 2 });
  runs.withdrawn({ node_id: "5", run: "a", chunk: 6 });
  assert.deepEqual(five.player.heard, [["a", false], -6]);
  assert.deepEqual(inner.player.heard, [1, 2]);
});

test("of two copies of a workflow each shows the run that it queued, whichever is open", () => {
  const { runs, open, add } = setUp();
  const first = add(["5"]);
  runs.state(RUNNING);
  runs.remove(first.node);
  const copy = open("two", ["5"]); // of the same id
  runs.frames({ node_id: "5", run: "a", chunk: 1 });
  runs.state({ ...RUNNING, run: "b", prompt_id: "q" });
  runs.frames({ node_id: "5", run: "b", chunk: 2 });
  assert.deepEqual(copy.player.heard, [["b", false], 2]);
  runs.remove(copy.node);
  const again = open("one", ["5"]);
  assert.deepEqual(again.player.heard, [["a", true]]);
  assert.deepEqual(first.player.heard, [["a", false]]);
});

test("the result of another tab's prompt is kept for that tab, also one that the server had kept", () => {
  const { runs, open, add } = setUp();
  const { node, player } = add(["5"]);
  runs.result({ node: "5", prompt_id: "q", output: { sf_run: ["of two"] } });
  assert.deepEqual(player.heard, []);
  runs.remove(node);
  assert.deepEqual(open("two", ["5"]).player.heard, ["of two"]);
});

test("while a workflow is loaded its nodes show nothing, and then what is of their tab", () => {
  const { runs, open, tabs } = setUp();
  runs.state(RUNNING);
  const { player } = open(null, ["5"]);
  assert.deepEqual(player.heard, []);
  tabs.current = "one";
  runs.offerAll();
  assert.deepEqual(player.heard, [["a", true]]);
  assert.deepEqual(runs.shown, ["a"]);
});

test("a run that this page did not queue is shown by the tab with its workflow", () => {
  const { runs, add } = setUp({});
  const { player } = add(["5"]);
  runs.state({ ...RUNNING, workflow: "another" }, true);
  runs.frames({ node_id: "5", run: "a", chunk: 1 });
  assert.deepEqual(player.heard, []);
  runs.state({ ...RUNNING, run: "b", workflow: "w" }, true);
  assert.deepEqual(player.heard, [["b", true]]);
});

test("an ended run of nobody knows which workflow is not shown by a page that was opened later", () => {
  const { runs, add } = setUp({});
  const { player } = add(["5"]);
  runs.state({ ...RUNNING, workflow: "", state: "ended" }, true);
  assert.deepEqual(player.heard, []);
  player.run = "a"; // but where it was shown before the connection was lost
  runs.state({ ...RUNNING, workflow: "", state: "ended" }, true);
  assert.deepEqual(player.heard, [["a", true]]);
});

test("what nobody shows is no error, and its state is kept for a node that comes later", () => {
  const { runs, add } = setUp();
  runs.frames({ node_id: "5", run: "a", chunk: 1 });
  runs.withdrawn({ node_id: "5", run: "a", chunk: 1 });
  runs.state(RUNNING, true);
  const { node, player } = add(["5"]);
  assert.deepEqual(player.heard, []);
  runs.offer(node);
  assert.deepEqual(player.heard, [["a", true]]);
});

test("a player that shows a run keeps it when its workflow is saved under another name", () => {
  const { runs, add, tabs } = setUp();
  const { player } = add(["5"]);
  runs.state(RUNNING);
  tabs.current = "saved as";
  runs.frames({ node_id: "5", run: "a", chunk: 4 });
  assert.deepEqual(player.heard, [["a", false], 4]);
});

test("of a node's runs, an ended one that is remembered does not take the place of the one that goes on", () => {
  const { runs, open } = setUp({ p: "one" });
  runs.state({ ...RUNNING, run: "new" }, true);
  runs.state({ ...RUNNING, run: "old", state: "ended" }, true);
  assert.deepEqual(open("one", ["5"]).player.heard, [["new", true]]);
});

test("what a node says while it works is its player's, and the editor's if it has none", () => {
  const { runs, add } = setUp();
  const { player } = add(["3:7", "4:7"]);
  assert.equal(runs.progress("4:7", "rebuilding the cache", "one"), true);
  assert.equal(runs.progress("9", "something else", "one"), false);
  assert.equal(runs.progress("4:7", "of a copy in another tab", "two"), true);
  assert.deepEqual(player.heard, ["rebuilding the cache"]);
});
