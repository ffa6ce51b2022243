import { after, clientId, listen, loading, locale, post, register, rootGraph, workflowOf } from "./lib/editor.js";
import { executionIds } from "./lib/ids.js";
import { isFrames, isState, isWithdrawn } from "./lib/messages.js";
import { LOOP_SETTING, Player } from "./player/player.js";
import { followPreset } from "./presets.js";
import { replayFromFile } from "./replay/replay.js";
import { Runs } from "./player/runs.js";
import { addSessionsPanel } from "./sessions/panel.js";
import { addTimeline } from "./timeline/widget.js";
import { words } from "./lib/i18n.js";

/** What a node of the pack gets beside what its schema says: class -> what is done to each new one. */
const ADDITIONS = {
  SFRolloutSettings: (node) => followPreset(node, () => !loading()),
  SFStreamVideo: (node) => addPlayer(node, { steering: "all" }),
  SFSampleChunks: (node) => addPlayer(node, { steering: "stop" }),
  SFDecodeChunks: (node) => addPlayer(node),
  SFPromptTimeline: addTimeline,
  SFTrain: (node) => addPlayer(node, { trains: true }),
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
listen("self_forcing.run", (state) => isState(state) && runs.state(state));
listen("self_forcing.frames", (message) => isFrames(message) && runs.frames(message));
listen("self_forcing.withdrawn", (message) => isWithdrawn(message) && runs.withdrawn(message));
listen("reconnected", attach);

/** What goes on since before this page was opened, or said something while it was not connected. */
async function attach() {
  try {
    const { runs: states } = await post("/self_forcing/attach", { client_id: await clientId() });
    for (const state of states) if (isState(state)) runs.state(state, true);
  } catch (error) {
    console.warn(`Self Forcing: runs that go on are not shown: ${error.message}`);
  }
}

const said = words(locale());

register({
  name: "SelfForcing",
  settings: [
    {
      id: LOOP_SETTING,
      category: ["Self Forcing", said.player, "Loop"],
      name: said.loopSetting,
      tooltip: said.loopSettingTooltip,
      type: "boolean",
      defaultValue: false,
    },
  ],
  setup() {
    addSessionsPanel();
    attach(); // not to be waited for: the editor would not open without a server
  },
  nodeCreated(node) {
    ADDITIONS[node.constructor.comfyClass]?.(node);
  },
  afterConfigureGraph: () => replayFromFile(rootGraph(), rootGraph().extra),
});
