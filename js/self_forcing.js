import { after, clientId, listen, loading, locale, post, register, rootGraph, toast, workflowOf } from "./lib/editor.js";
import { executionIds } from "./lib/ids.js";
import { Player } from "./lib/player.js";
import { followPreset } from "./lib/presets.js";
import { replayFromFile } from "./lib/replay.js";
import { Runs } from "./lib/run_state.js";
import { addSessionsPanel } from "./lib/sessions_panel.js";
import { addTimeline } from "./lib/timeline_widget.js";
import { words } from "./lib/words.js";

/** What a node of the pack gets beside what its schema says: class -> what is done to each new one. */
const ADDITIONS = {
  SFRolloutSettings: (node) => followPreset(node, () => !loading()),
  SFStreamVideo: (node) => {
    addStopButton(node);
    addPlayer(node, { steering: "all" });
  },
  SFSampleChunks: (node) => addPlayer(node, { steering: "stop" }),
  SFDecodeChunks: (node) => addPlayer(node),
  SFPromptTimeline: addTimeline,
};

const runs = new Runs({ idsOf: executionIds, placeOf: workflowOf });

function addPlayer(node, options) {
  const player = new Player(node, options);
  runs.add(node, player);
  // it has an id as soon as it is in a graph, and its subgraph a place when the whole workflow is there
  after(node, "onAdded", () => queueMicrotask(() => runs.offer(node)));
  after(node, "onExecuted", (output) => player.showResult(output));
  after(node, "onRemoved", () => runs.remove(node));
}

// before the first message comes: the editor complains of messages that nobody knows
listen("self_forcing.run", (state) => runs.state(state));
listen("self_forcing.frames", (message) => runs.frames(message));
listen("self_forcing.withdrawn", (message) => runs.withdrawn(message));
listen("reconnected", attach);

/** What goes on since before this page was opened, or said something while it was not connected. */
async function attach() {
  const { runs: states } = await post("/self_forcing/attach", { client_id: clientId() });
  for (const state of states) runs.state(state, true);
}

function addStopButton(node) {
  const said = words(locale());
  // an older editor's Nodes 2.0 shows the name; it is the same in every language, since workflows may refer to it
  const button = node.addWidget("button", words("en").stop, null, () => stop(node, said), { serialize: false });
  button.serialize = false; // the option keeps it out of what Run sends, this out of the saved workflow
  button.label = said.stop;
  button.tooltip = said.stopTooltip;
}

/** Asks the server to end the run after the chunk at work: in a subgraph, whichever of its copies runs. */
async function stop(node, said) {
  const ask = (id) => post("/self_forcing/steer", { node_id: id, action: "stop" });
  const answers = await Promise.allSettled(executionIds(node).map(ask));
  if (answers.some((answer) => answer.status === "fulfilled")) toast("info", said.stopping);
  else toast("warn", said.notRunning);
}

register({
  name: "SelfForcing",
  setup() {
    addSessionsPanel();
    return attach();
  },
  nodeCreated(node) {
    ADDITIONS[node.constructor.comfyClass]?.(node);
  },
  afterConfigureGraph: () => replayFromFile(rootGraph(), rootGraph().extra),
});
