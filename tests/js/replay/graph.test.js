import assert from "node:assert/strict";
import test from "node:test";

import "../texts.js";
import { makeReplay } from "../../../js/replay/graph.js";

const STATE = { rows: "0: a red circle\n2.25 cut:", seconds: 7.3125 };

/** A graph of nodes {id, type, widgets, inputs, wires: {input: {node, slot}}}, and the editor's functions for it. */
function fake() {
  const graph = { nodes: [], getNodeById: (id) => graph.nodes.find((node) => node.id === id) };
  const done = [];
  const add = (type, inputs, widgets, pos = [0, 0]) => {
    const node = { id: graph.nodes.length + 1, type, graph, pos, size: [200, 100], wires: {} };
    node.inputs = inputs.map((name) => ({ name }));
    node.widgets = Object.entries(widgets).map(([name, value]) => ({ name, value }));
    graph.nodes.push(node);
    return node;
  };
  const editor = {
    locale: () => "en",
    toast: (...said) => done.push(said),
    undoable(change) {
      done.push("begin");
      const result = change();
      done.push("end");
      return result;
    },
    originOf: (node, input) => node.wires[input] ?? null,
    connect: (from, slot, to, input) => (to.wires[input] = { node: from, slot }),
    widgetOf: (node, name) => node.widgets.find((widget) => widget.name === name),
    setWidget: (node, name, value) => {
      const widget = editor.widgetOf(node, name);
      if (!widget) return;
      widget.value = typeof value === "number" ? Math.round(value * 10) / 10 : value; // as the editor rounds
    },
    addNode: (type, beside, place) => {
      assert.equal(type, "SFPromptTimeline");
      const pos = place([beside.pos[0] - 260, beside.pos[1], 200, 100]);
      return add(type, ["clip"], { rows: "0: example", recache: false }, pos);
    },
  };
  const stream = add("SFStreamVideo", ["session", "timeline", "clip"], { seconds: 0 }, [1000, 0]);
  const clip = add("CLIPLoader", [], {}, [0, 500]);
  const valueOf = (node, name) => editor.widgetOf(node, name).value;
  return { graph, done, add, editor, stream, clip, valueOf, ...makeReplay(editor) };
}

test("the timeline that is wired gets the rows, and nothing is added", () => {
  const { add, editor, stream, clip, graph, valueOf, replay } = fake();
  const timeline = add("SFPromptTimeline", ["clip"], { rows: "0: other", recache: true });
  editor.connect(timeline, 0, stream, "timeline");
  editor.connect(clip, 1, timeline, "clip");
  const count = graph.nodes.length;
  assert.equal(replay(stream, STATE), timeline);
  assert.equal(graph.nodes.length, count);
  assert.equal(valueOf(timeline, "rows"), STATE.rows);
  assert.equal(valueOf(timeline, "recache"), false);
});

test("without a timeline one is added and wired to the same text encoder", () => {
  const { editor, stream, clip, valueOf, replay } = fake();
  editor.connect(clip, 1, stream, "clip");
  const timeline = replay(stream, STATE);
  assert.deepEqual(stream.wires.timeline, { node: timeline, slot: 0 });
  assert.deepEqual(timeline.wires.clip, { node: clip, slot: 1 });
  assert.equal(valueOf(timeline, "rows"), STATE.rows);
});

test("the video is as long as it was, to the last digit", () => {
  const { stream, valueOf, replay } = fake();
  replay(stream, STATE);
  assert.equal(valueOf(stream, "seconds"), 7.3125);
});

test("seeds are those of the run, to the last digit, and stay", () => {
  const { add, editor, stream, valueOf, replay } = fake();
  const session = add("SFSession", [], { seed: 9, control_after_generate: "randomize" });
  const other = add("KSampler", [], { noise_seed: 3 });
  const large = add("KSampler", [], { seed: 3 });
  const set = editor.setWidget;
  editor.setWidget = (node, name, value) => set(node, name, name === "seed" ? Number(value) : value);
  const seeds = {
    ...{ [session.id]: { seed: 5 }, [other.id]: { noise_seed: 3 }, 99: { seed: 1 } },
    [large.id]: { seed: "18446744073709551615" },
  };
  replay(stream, { ...STATE, seeds });
  assert.equal(valueOf(session, "seed"), 5);
  assert.equal(valueOf(session, "control_after_generate"), "fixed");
  assert.equal(valueOf(other, "noise_seed"), 3);
  assert.equal(valueOf(large, "seed"), "18446744073709551615"); // a number would have lost its last digits
});

test("a wire from another kind of node makes way for the timeline", () => {
  const { add, editor, stream, replay } = fake();
  editor.connect(add("Reroute", [], {}), 0, stream, "timeline");
  const timeline = replay(stream, STATE);
  assert.equal(timeline.type, "SFPromptTimeline");
  assert.equal(stream.wires.timeline.node, timeline);
});

test("it is one step, and says what was done and what is left to do", () => {
  const { done, stream, clip, editor, replay } = fake();
  replay(stream, STATE);
  assert.equal(done[0], "begin");
  assert.equal(done.at(-1), "end");
  assert.equal(done.length, 3);
  assert.equal(done[1][0], "warn");
  assert.match(done[1][2], /7\.313 s.*CLIP/);
  editor.connect(clip, 1, stream.wires.timeline.node, "clip");
  replay(stream, STATE);
  assert.equal(done[4][0], "success");
  assert.doesNotMatch(done[4][2], /CLIP/);
});

test("a new timeline lies on no other node", () => {
  const { add, stream, graph, replay } = fake();
  add("SFSession", [], {}, [760, -20]);
  add("SFLoadTiny", [], {}, [700, 160]);
  const timeline = replay(stream, STATE);
  for (const other of graph.nodes.filter((node) => node !== timeline)) {
    const apart = [0, 1].some(
      (at) =>
        timeline.pos[at] >= other.pos[at] + other.size[at] || other.pos[at] >= timeline.pos[at] + timeline.size[at],
    );
    assert.ok(apart, other.type);
  }
});

test("a loaded file's marks are used once, each for the node that it names, also inside a subgraph", () => {
  const outer = fake();
  const inner = fake();
  const box = outer.add("a subgraph", [], {});
  box.subgraph = inner.graph;
  const extra = {
    ds: {},
    self_forcing: { 1: STATE, [`${box.id}:1`]: { rows: "0: b", seconds: 2 }, 2: STATE, "9:9": STATE },
  };
  outer.replayFromFile(outer.graph, extra);
  assert.deepEqual(extra, { ds: {} });
  assert.equal(outer.valueOf(outer.stream.wires.timeline.node, "rows"), STATE.rows);
  assert.equal(inner.valueOf(inner.stream.wires.timeline.node, "rows"), "0: b");
  assert.equal(inner.valueOf(inner.stream, "seconds"), 2);
  assert.ok(!outer.done.includes("begin"), "part of loading, no step of its own");
});

test("a file without marks loads as it is", () => {
  const { graph, replayFromFile } = fake();
  const count = graph.nodes.length;
  for (const extra of [undefined, {}, { ds: {} }, { self_forcing: { 1: null } }]) replayFromFile(graph, extra);
  assert.equal(graph.nodes.length, count);
});

test("a mark of a file that is no mark changes nothing", () => {
  for (const mark of [null, 7, "x", [], {}, { rows: 3, seconds: 1 }, { rows: STATE.rows, seconds: null }, { rows: STATE.rows }]) {
    const { graph, stream, valueOf, replayFromFile } = fake();
    const extra = { self_forcing: { [stream.id]: mark } };
    const count = graph.nodes.length;
    replayFromFile(graph, extra);
    assert.equal(graph.nodes.length, count);
    assert.equal(valueOf(stream, "seconds"), 0);
    assert.equal(extra.self_forcing, undefined);
  }
  const { graph, replayFromFile } = fake();
  for (const extra of [null, undefined, {}, { self_forcing: null }, { self_forcing: [] }]) replayFromFile(graph, extra);
});
