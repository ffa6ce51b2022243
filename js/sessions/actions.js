import * as editor from "../lib/editor.js";
import { post } from "../lib/server.js";
import { continueInNewNodes, hasModel, loadSession } from "./continue.js";
import { kindOf, nameOf, titleOf } from "./model.js";

/** Buttons of the cards in the sessions panel. */

/**
 * @typedef {import("./model.js").Entry} Entry
 * @typedef {(prompt: string) => string | undefined} PathOf gives the path of the workflow whose tab queued a prompt
 * @typedef {{refresh: () => Promise<void>, pathOf: PathOf}} Page what an action needs of the panel
 * @typedef {{tooltip: TextKey, label: TextKey, run: (entry: Entry, t: Translate, page: Page) => unknown}} Action
 */

export const PATH = "/self_forcing/sessions";

/** @type {(entry: Entry, page: Page) => Action[]} */
export const actionsFor = (entry, { pathOf }) => {
  switch (kindOf(entry)) {
    case "live":
      return [...(pathOf(entry.prompt_id ?? "") === undefined ? [] : [SHOW]), STOP, FORK];
    case "damaged":
      return [DELETE];
    case "saved":
      return [CONTINUE, LOAD, RENAME, DELETE];
    default:
      return [CONTINUE, LOAD, KEEP, DELETE];
  }
};

/** @type {Action} */
const SHOW = {
  label: "sessions.show",
  tooltip: "sessions.showTooltip",
  async run({ node_id, prompt_id }, t, { pathOf }) {
    const path = pathOf(prompt_id ?? "");
    const isThere = path !== undefined && (await editor.showNodeOf(node_id ?? "", path));
    if (!isThere) editor.toast("warn", t("sessions.noNode", { id: node_id }));
  },
};

/** @type {Action} */
const STOP = {
  label: "sessions.stop",
  tooltip: "sessions.stopTooltip",
  run: ({ node_id, run }) => post("/self_forcing/steer", { node_id, run, action: "stop" }),
};

/** @type {Action} */
const LOAD = {
  label: "sessions.load",
  tooltip: "sessions.loadTooltip",
  run: ({ name }, t) => showAdded([loadSession(name)], t),
};

/** @type {Action} */
const CONTINUE = {
  label: "sessions.continue",
  tooltip: "sessions.continueTooltip",
  run: ({ name }, t) => showAdded(continueInNewNodes(name), t),
};

/** @type {Action} */
const FORK = {
  label: "sessions.fork",
  tooltip: "sessions.forkTooltip",
  async run({ node_id, run }, t, { refresh }) {
    const { name } = await post(`${PATH}/keep`, { node_id, run });
    editor.toast("success", t("sessions.kept", { name: nameOf({ name }) }));
    showAdded([loadSession(name)], t);
    refresh();
  },
};

/** @type {Action} */
const KEEP = {
  label: "sessions.keep",
  tooltip: "sessions.keepTooltip",
  async run({ name: session }, t, { refresh }) {
    await thenRefresh(refresh, async () => {
      const { name } = await post("/self_forcing/keep", { session });
      editor.toast("success", t("sessions.kept", { name: nameOf({ name }) }));
    });
  },
};

/** @type {Action} */
const RENAME = {
  label: "sessions.rename",
  tooltip: "sessions.renameTooltip",
  async run(entry, t, { refresh }) {
    const before = nameOf(entry).split("/").pop() ?? "";
    const name = await editor.ask(t("sessions.renameTitle"), t("sessions.renameQuestion"), before);
    if (!name || name === before) return;
    await thenRefresh(refresh, () => post(`${PATH}/rename`, { session: entry.name, name }));
  },
};

/** @type {Action} */
const DELETE = {
  label: "sessions.delete",
  tooltip: "sessions.deleteTooltip",
  async run(entry, t, { refresh }) {
    const name = titleOf(entry, t);
    if (!(await editor.confirm(t("sessions.deleteTitle"), t("sessions.deleteQuestion", { name })))) return;
    await thenRefresh(refresh, async () => {
      await post(`${PATH}/delete`, { name: entry.name });
      editor.toast("success", t("sessions.deleted", { name }));
    });
  },
};

/**
 * Changes the sessions and lists them again, also if the server refused: the list was old then.
 *
 * @param {Page["refresh"]} refresh
 * @param {() => Promise<void>} change
 */
async function thenRefresh(refresh, change) {
  try {
    await change();
  } finally {
    await refresh();
  }
}

/** @type {(nodes: ComfyNode[], t: Translate) => void} */
function showAdded(nodes, t) {
  editor.showNodes(nodes);
  editor.toast("info", t("sessions.added"), hasModel(nodes[0]) ? "" : t("sessions.wireModel"));
}
