import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { executionIds } from "./lib/ids.js";
import { addLiveView } from "./lib/live_view.js";
import { followPreset } from "./lib/presets.js";
import { words } from "./lib/words.js";

/** What a node of the pack gets beside what its schema says: class -> what is done to each new one. */
const ADDITIONS = {
  SFRolloutSettings: (node) => followPreset(node, () => !app.configuringGraph),
  SFStreamVideo: (node) => {
    addStopButton(node);
    addView(node);
  },
  SFDecodeChunks: addView,
};

/** The views of the nodes that there are, by node. */
const views = new Map();

function addView(node) {
  const view = addLiveView(node, (path) => api.apiURL(path));
  views.set(node, view);
  chain(node, "onExecuted", (output) => {
    const file = output?.sf_video?.[0];
    if (file) view.showVideo(file);
  });
  chain(node, "onRemoved", () => {
    view.remove();
    views.delete(node);
  });
}

function chain(node, name, then) {
  const before = node[name];
  node[name] = function (...details) {
    const result = before?.apply(this, details);
    then(...details);
    return result;
  };
}

// before the first message comes: the editor complains of messages that nobody knows
api.addEventListener("self_forcing.frames", ({ detail }) => {
  for (const [node, view] of views)
    if (executionIds(node).includes(String(detail.node_id))) view.play(detail.frames, detail.seconds);
});

function addStopButton(node) {
  const said = words(app.extensionManager?.setting.get("Comfy.Locale"));
  // an older editor's Nodes 2.0 shows the name; it is the same in every language, since workflows may refer to it
  const button = node.addWidget("button", words("en").stop, null, () => stop(node, said), { serialize: false });
  button.serialize = false; // the option keeps it out of what Run sends, this out of the saved workflow
  button.label = said.stop;
  button.tooltip = said.stopTooltip;
}

/** Asks the server to end the run after the chunk at work: in a subgraph, whichever of its copies runs. */
async function stop(node, said) {
  const answers = await Promise.allSettled(
    executionIds(node).map((id) =>
      api.fetchApi("/self_forcing/stop", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ node_id: id }),
      }),
    ),
  );
  const stopping = answers.some((answer) => answer.status === "fulfilled" && answer.value.ok);
  app.extensionManager.toast.add(
    stopping
      ? { severity: "info", summary: said.stopping, life: 3000 }
      : { severity: "warn", summary: said.notRunning, life: 5000 },
  );
}

app.registerExtension({
  name: "SelfForcing",
  nodeCreated(node) {
    ADDITIONS[node.constructor.comfyClass]?.(node);
  },
});
