import { freePlace } from "../lib/free_place.js";
import { translator } from "../lib/i18n.js";
import { nodeAt } from "../lib/ids.js";

/**
 * @typedef {Pick<import("../lib/messages.js").RunState, "rows" | "seconds">} Mark what makes the video of a run again
 * @typedef {typeof import("../lib/editor.js")} EditorModule
 * @typedef {typeof import("../lib/widgets.js")} WidgetsModule
 * @typedef {Pick<EditorModule, "addNode" | "connect" | "locale" | "originOf" | "toast" | "undoable"> &
 *   Pick<WidgetsModule, "setWidget" | "widgetOf">} Editor
 */

const GAP = 60; // pixels between a new node and others, for its title

/**
 * Makes the functions of Replay for an editor; tests have one of their own.
 *
 * @param {Editor} editor
 */
export function makeReplay(editor) {
  /**
   * Changes the graph so that Run makes the video of a run again: what was typed becomes rows of the node's Prompt
   * Timeline, which is added if need be. Returns the Prompt Timeline.
   *
   * @param {ComfyNode} node a Stream Video
   * @param {Mark & {seeds?: Record<string, Record<string, number | string>>}} state of the run
   */
  function replay(node, state) {
    return editor.undoable(() => {
      restoreSeeds(node.graph.rootGraph ?? node.graph, state.seeds ?? {});
      return writeRows(node, state);
    });
  }

  /**
   * Sets the seeds to those of the run, since the editor has drawn others after it, and keeps them from changing.
   *
   * @type {(graph: ComfyGraph, seeds: Record<string, Record<string, number | string>>) => void}
   */
  function restoreSeeds(graph, seeds) {
    for (const [id, inputs] of Object.entries(seeds)) {
      const node = nodeAt(graph, id);
      if (!node) continue;
      for (const [name, value] of Object.entries(inputs)) {
        editor.setWidget(node, name, value);
        const widget = editor.widgetOf(node, name);
        if (widget && typeof value === "string") widget.value = value; // the editor makes a number of it, and rounds it
      }
      editor.setWidget(node, "control_after_generate", "fixed");
    }
  }

  /**
   * Does the same after a workflow was loaded, for each node that it has a mark for: a video that was steered by hand
   * carries them. They are {execution id: mark} in extra.self_forcing, and are removed when they are used.
   *
   * This is part of loading, so it cannot be undone by itself.
   *
   * @param {ComfyGraph} graph
   * @param {{self_forcing?: Record<string, Mark>} | undefined} extra
   */
  function replayFromFile(graph, extra) {
    const marks = Object.entries(extra?.self_forcing ?? {});
    if (extra) delete extra.self_forcing;
    for (const [id, mark] of marks) {
      const node = nodeAt(graph, id);
      if (isMark(mark) && node?.inputs?.some(({ name }) => name === "timeline")) writeRows(node, mark);
    }
  }

  /** @type {(node: ComfyNode, mark: Mark) => ComfyNode} */
  function writeRows(node, { rows, seconds }) {
    const wired = editor.originOf(node, "timeline")?.node;
    const existing = wired?.type === "SFPromptTimeline" ? wired : null;
    const timeline = existing ?? addTimelineTo(node);
    editor.setWidget(timeline, "rows", rows);
    editor.setWidget(timeline, "recache", false); // the rows say where
    editor.setWidget(node, "seconds", seconds);
    const length = editor.widgetOf(node, "seconds");
    if (length) length.value = seconds; // exactly: the editor rounds what a user sets
    report(timeline, seconds, existing !== null);
    return timeline;
  }

  /** @param {ComfyNode} node */
  function addTimelineTo(node) {
    const boxes = node.graph.nodes.map(({ pos, size }) => /** @type {Box} */ ([pos[0], pos[1], size[0], size[1]]));
    const timeline = editor.addNode("SFPromptTimeline", node, (wanted) => freePlace(wanted, boxes, GAP));
    const clip = editor.originOf(node, "clip");
    if (clip) editor.connect(clip.node, clip.slot, timeline, "clip");
    editor.connect(timeline, 0, node, "timeline");
    return timeline;
  }

  /** @type {(timeline: ComfyNode, seconds: number, existed: boolean) => void} */
  function report(timeline, seconds, existed) {
    const t = translator(editor.locale());
    const key = existed ? "replay.rowsReplaced" : "replay.timelineAdded";
    const texts = [t(key, { seconds: Number(seconds.toFixed(3)) })];
    const clip = editor.originOf(timeline, "clip");
    if (!clip) texts.push(t("replay.wireClip"));
    editor.toast(clip ? "success" : "warn", t("replay.done"), texts.join(" "));
  }

  return { replay, replayFromFile };
}

/**
 * Whether a value of a file, which anybody may have written, is a mark.
 *
 * @param {any} value
 */
const isMark = (value) => typeof value?.rows === "string" && value.rows && Number.isFinite(value.seconds);
