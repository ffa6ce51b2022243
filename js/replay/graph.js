import { freePlace } from "../lib/free_place.js";
import { fill, words } from "../lib/i18n.js";

const GAP = 60; // pixels between a new node and one that is in its way, its title included

/**
 * What Replay does to a graph. `editor` has the functions of editor.js that it takes, so that it can be tried on any.
 */
export function makeReplay(editor) {
  /**
   * Makes the graph such that Run gives the video of a run again, without a hand: what was typed becomes rows of the
   * Prompt Timeline that the node has or is given.
   *
   * @param node a Stream Video
   * @param state {{rows: string, seconds: number, seeds: object}} of the run, as in docs/live.md
   * @returns the Prompt Timeline
   */
  function replay(node, state) {
    return editor.undoable(() => {
      bringBack(node.graph.rootGraph ?? node.graph, state.seeds ?? {});
      return writeDown(node, state);
    });
  }

  /** The seeds of the run, in place of those that the editor has drawn since; it draws no others. */
  function bringBack(graph, seeds) {
    for (const [id, inputs] of Object.entries(seeds)) {
      const node = nodeAt(graph, id);
      for (const [name, value] of Object.entries(inputs)) if (node) editor.setWidget(node, name, value);
      if (node) editor.setWidget(node, "control_after_generate", "fixed");
    }
  }

  /**
   * Does the same after a workflow was loaded, for each node that it has marks for: a video that was steered by hand
   * carries them. They are {execution id: {rows, seconds}} in extra.self_forcing, and go when they are used.
   *
   * It is no step of its own that could be undone, but part of loading.
   */
  function replayFromFile(graph, extra) {
    const marks = Object.entries(extra?.self_forcing ?? {});
    if (extra) delete extra.self_forcing;
    for (const [id, state] of marks) {
      const node = nodeAt(graph, id);
      if (node?.inputs?.some((input) => input.name === "timeline") && state?.rows) writeDown(node, state);
    }
  }

  function writeDown(node, { rows, seconds }) {
    const wired = editor.originOf(node, "timeline")?.node;
    const there = isTimeline(wired);
    const timeline = there ? wired : addTimelineTo(node);
    editor.setWidget(timeline, "rows", rows);
    editor.setWidget(timeline, "recache", false); // the rows say where
    editor.setWidget(node, "seconds", seconds);
    const length = editor.widgetOf(node, "seconds");
    if (length) length.value = seconds; // as it is: the editor rounds what a user sets
    tell(timeline, seconds, there);
    return timeline;
  }

  function addTimelineTo(node) {
    const boxes = node.graph.nodes.map((one) => [...one.pos, ...one.size]);
    const timeline = editor.addNode("SFPromptTimeline", node, (wanted) => freePlace(wanted, boxes, GAP));
    const clip = editor.originOf(node, "clip");
    if (clip) editor.connect(clip.node, clip.slot, timeline, "clip");
    editor.connect(timeline, 0, node, "timeline");
    return timeline;
  }

  function tell(timeline, seconds, there) {
    const said = words(editor.locale());
    const told = [fill(there ? said.replayTold : said.replayAdded, { seconds: Number(seconds.toFixed(3)) })];
    const clip = editor.originOf(timeline, "clip");
    if (!clip) told.push(said.replayWireClip);
    editor.toast(clip ? "success" : "warn", said.replayDone, told.join(" "));
  }

  return { replay, replayFromFile };
}

const isTimeline = (node) => node?.type === "SFPromptTimeline";

/** The node that the server calls so: "7", or "3:7" inside subgraph node 3. */
function nodeAt(graph, id) {
  const [first, ...inner] = id.split(":");
  const node = graph.getNodeById(first) ?? graph.getNodeById(Number(first)); // older editors' ids are numbers
  return inner.length && node ? node.subgraph && nodeAt(node.subgraph, inner.join(":")) : node;
}
