import { asOfLoader } from "./certificates.js";
import { after, growTo, loading, locale, onLoad, register, rootGraph, workflows } from "./lib/editor.js";
import { offerPreview, hidePreviews, removePreview } from "./lib/previews.js";
import { isCanvasOnScreen, isOnScreen, replacePatterns } from "./lib/widgets.js";
import { followRate } from "./frame_rate.js";
import { sayLength } from "./length.js";
import { unescapeHtml } from "./lib/format.js";
import { setTexts, translator } from "./lib/i18n.js";
import { executionIds } from "./lib/ids.js";
import { isFrames, isState, isWithdrawn } from "./lib/messages.js";
import { clientId, divert, get, listen, onQueue, onTemplates, post } from "./lib/server.js";
import { keepPlain, translateNotes } from "./notes.js";
import { LOOP_SETTING, Player } from "./player/player.js";
import { Runs } from "./player/runs.js";
import { Tabs } from "./player/tabs.js";
import { followPreset } from "./presets.js";
import { addRecognition } from "./recognition.js";
import { replayFromFile } from "./replay/replay.js";
import { addSessionsPanel } from "./sessions/panel.js";
import { folderOf, inOrder } from "./templates.js";
import { Texts } from "./texts.js";
import { addTimeline } from "./timeline/widget.js";
import { verifying } from "./verify.js";
import { Words } from "./words.js";

/** The pack's extension of the editor. The editor loads every module below js/; only this one does anything by itself. */

const TEXTS_WITHIN = 5000; // milliseconds; the editor does not open before

/** Pixels, at least, of a new node: for its text and its picture. @type {[number, number]} */
const SESSION_INFO = [340, 480];

/** Additions to the nodes of the pack, by class. @type {Record<string, (node: ComfyNode) => void>} */
const ADDITIONS = {
  SFRolloutSettings(node) {
    followPreset(node, () => !loading());
    addWords(node);
  },
  SFLoadModel: (node) => addRecognition(node, addWords(node)),
  SFFromModel: addWords,
  SFVerify: addWords,
  SFSession: addWords,
  SFSaveSession(node) {
    replacePatterns(node, "filename_prefix");
    addWords(node);
  },
  SFSessionInfo(node) {
    addWords(node);
    growTo(node, SESSION_INFO);
  },
  SFStreamVideo(node) {
    addPlayer(node, { steering: "all" });
    sayLength(node);
    followRate(node);
  },
  SFSampleChunks(node) {
    addPlayer(node, { steering: "stop" });
    followRate(node);
  },
  SFDecodeChunks(node) {
    addPlayer(node);
    followRate(node);
  },
  SFPromptTimeline: addTimeline,
  SFTrain: (node) => addPlayer(node, { trains: true }),
};

const PLAYER = "live"; // the widget of the player
const TABS = "SelfForcing.Tabs"; // in the storage that a page keeps when it is loaded again, as the editor does its name
const tabs = new Tabs(workflows, {
  read: () => JSON.parse(sessionStorage.getItem(TABS) ?? "null"),
  write: (value) => sessionStorage.setItem(TABS, JSON.stringify(value)),
});
const runs = new Runs({ idsOf: executionIds, tabs });
const texts = new Texts({ idsOf: executionIds, tabs, language: locale });

/**
 * @param {ComfyNode} node
 * @param {import("./player/player.js").Options} [options]
 */
function addPlayer(node, options) {
  const player = new Player(node, options);
  offerPreview(node);
  runs.add(node, player);
  // the node has an id now, but its subgraph gets its place only after the whole workflow is loaded
  after(node, "onAdded", () => queueMicrotask(() => runs.offer(node)));
  after(node, "onRemoved", () => runs.remove(node));
}

/** @param {ComfyNode} node */
function addWords(node) {
  const words = new Words(node);
  texts.add(node, words);
  after(node, "onRemoved", () => texts.remove(node));
  return words;
}

/**
 * Asks for the messages of the runs that this page queued, also before it was loaded again, and shows them as they are now.
 *
 * @param {string[]} [shown] the runs whose frames it wants, and of those that begin later until it asks again; else of all
 */
async function attach(shown) {
  try {
    const who = { client_id: await clientId(), language: locale() };
    const wishes = { own: true, visible: !document.hidden, previews: !isCanvasOnScreen() };
    const asked = { ...who, ...wishes, ...(shown && { runs: shown }) };
    const { runs: states } = await post("/self_forcing/attach", asked);
    for (const state of states) if (isState(state)) runs.state(state, true);
    if (shown && onScreen().some((run) => !shown.includes(run))) attachToShown(); // these states put them on their nodes
  } catch (error) {
    console.warn("Self Forcing: cannot show the runs that began before this page was loaded:", error);
  }
}

/** @param {ComfyNode} node */
function showsPlayer(node) {
  const shows = isOnScreen(node, PLAYER);
  if (shows) removePreview(node);
  return shows;
}

const onScreen = () => runs.shownWhere(showsPlayer);

let asked = ""; // what the server was asked for

/** What to ask the server for: the runs on the screen, and whether App mode shows previews beside them. @type {(shown: string[]) => string} */
const wishFor = (shown) => JSON.stringify([shown, isCanvasOnScreen()]);

/**
 * Asks for the frames of the runs that are on the screen. Of others the server sends ComfyUI's own previews; of all in App
 * mode, for its large area.
 */
function attachToShown() {
  const shown = onScreen();
  asked = wishFor(shown);
  return attach(shown);
}

/** @param {unknown} state */
function showState(state) {
  if (!isState(state)) return;
  const isNew = !runs.knows(state.run);
  runs.state(state);
  const shown = onScreen();
  // the server sends frames of a new run, of which a player in another tab has no use; or a subgraph was opened or closed
  if ((isNew && !shown.includes(state.run)) || asked !== wishFor(shown)) attachToShown();
}

/** Begins to load a workflow, whose tab may be another one. */
function beginLoading() {
  const end = tabs.load();
  return () => {
    end();
    runs.offerAll();
    texts.offerAll();
    attachToShown();
  };
}

let executing = ""; // the prompt that the server runs for this page

/**
 * Shows what a node says while it works. Returns whether it is a node of the pack: the editor would show the text below
 * what the pack shows, or on a node of another tab.
 *
 * @param {{nodeId?: string | number, text?: string} | undefined} message
 */
function showProgress({ nodeId, text } = {}) {
  if (typeof text !== "string") return false;
  const tab = (executing && tabs.of(executing)) || tabs.current;
  const { node } = asOfLoader({ node: String(nodeId) });
  const plain = unescapeHtml(text);
  return [texts.progress(node, plain, tab), runs.progress(node, plain, tab)].some(Boolean);
}

/** @param {{node: string, display_node?: string, prompt_id: string, output: any}} message */
function showResult(message) {
  const result = { ...message, node: String(message.display_node ?? message.node) };
  runs.result(result);
  texts.result(asOfLoader(result));
}

/**
 * The name of a workflow, as its tab shows it.
 *
 * @param {string} path
 */
const nameOf = (path) => path.split("/").pop()?.replace(/(\.app)?\.json$/i, "") ?? "";

async function loadTexts() {
  try {
    setTexts(await get("/i18n", { signal: AbortSignal.timeout(TEXTS_WITHIN) }));
  } catch (error) {
    console.warn("Self Forcing: the server did not send the texts of the interface, so their keys are shown:", error);
  }
}

// before the first message comes: the editor logs an error for messages without a listener
listen("self_forcing.run", showState);
listen("self_forcing.frames", (message) => isFrames(message) && runs.frames(message));
listen("self_forcing.withdrawn", (message) => isWithdrawn(message) && runs.withdrawn(message));
listen("execution_start", ({ prompt_id }) => (executing = prompt_id));
listen("executed", showResult);
divert("progress_text", showProgress);
for (const end of ["execution_error", "execution_interrupted"]) listen(end, () => texts.endProgress());
listen("reconnected", () => attach());
document.addEventListener("visibilitychange", attachToShown);
onQueue(
  () => tabs.queue(),
  () => nameOf(workflows.path()),
);
onLoad(beginLoading);
const folder = folderOf(import.meta.url);
onTemplates((all) => (all[folder] ? { ...all, [folder]: inOrder(all[folder]) } : all));

await loadTexts(); // the editor waits for this module, so no node is made before
const t = translator(locale());

register({
  name: "SelfForcing",
  ...verifying(t, (loader, text) => texts.progress(loader, text, tabs.current)),
  settings: [
    {
      id: LOOP_SETTING,
      category: ["Self Forcing", t("player.title"), "Loop"],
      name: t("player.loopSetting"),
      tooltip: t("player.loopSettingTooltip"),
      type: "boolean",
      defaultValue: false,
    },
  ],
  setup() {
    hidePreviews();
    addSessionsPanel((prompt) => tabs.pathOf(prompt));
    attach(); // not awaited: the editor would not open before the server has answered
  },
  nodeCreated(/** @type {ComfyNode} */ node) {
    ADDITIONS[node.constructor.comfyClass ?? ""]?.(node);
  },
  beforeConfigureGraph: translateNotes,
  loadedGraphNode: keepPlain,
  afterConfigureGraph() {
    delete rootGraph().extra?.sf_workflow; // of a video or picture that was dropped; see onQueue
    replayFromFile(rootGraph(), rootGraph().extra);
  },
});
