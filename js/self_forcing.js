import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { executionIds } from "./lib/ids.js";
import { followPreset } from "./lib/presets.js";
import { words } from "./lib/words.js";

/** What a node of the pack gets beside what its schema says: class -> what is done to each new one. */
const ADDITIONS = {
  SFRolloutSettings: (node) => followPreset(node, () => !app.configuringGraph),
  SFStreamVideo: addStopButton,
};

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
